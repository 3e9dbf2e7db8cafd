"""The demo model: a small deterministic server that speaks OpenAI's protocol. It is not a language model.

It picks tools by matching words of the last user message with their names, descriptions and parameters, takes
numbers and names from the text, and puts the tools' results into its answer. The same request gives the same answer.

Environment (read once, when it starts):
- ROPEWALK_PORT: where it listens; default 8080.
- ROPEWALK_DEMO_DELAY_MILLISECONDS: how long it waits before the first token; default 0.
- ROPEWALK_DEMO_CHUNK_MILLISECONDS: how long it waits between two chunks of a stream; default 0.

Control words, anywhere in the last user message:
- `demo:fail=500` answers with that HTTP status (400 to 599) and an error.
- `demo:slow=5` waits that many seconds (at most 600) before the first token.
- `demo:loop` calls its first tool again after each result, without end.

Usage is counted in words: prompt_tokens are the words, divided by white space, of the texts and tool arguments of all
messages; completion_tokens are those of the answer, where a tool call counts its name and its arguments.
"""
