"""What an agent keeps between requests in OpenAI's protocol, over real HTTP, asked by OpenAI's own client."""

import openai
import pytest

from agent_models import ScriptedModel
from agent_openai import QUESTION, asked, say
from agent_server import running_agent


async def test_nothing_is_kept_between_requests() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent, asked(agent) as client:
        await say(client, user="anna")
        await say(client, user="anna")
        assert [len(asked) for asked in agent.model.asked] == [1, 1]
        assert agent.metrics.registry.get_sample_value("ropewalk_agent_sessions") == 0


async def test_a_named_session_goes_on_and_belongs_to_its_user() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent, asked(agent) as client:
        await say(client, user="anna", metadata={"session_id": "s", "project": "p"})
        await say(client, user="anna", metadata={"session_id": "s"})
        await say(client, user="bert", metadata={"session_id": "s"})
        await agent.query("and by /query", session_id="s", user_id="anna")
        with pytest.raises(openai.BadRequestError, match="send the new question alone"):
            await say(
                client, [*QUESTION, {"role": "assistant", "content": "x"}, *QUESTION], metadata={"session_id": "s"}
            )
    assert [len(asked) for asked in agent.model.asked] == [1, 3, 1, 5]


async def test_an_answer_can_be_fed_back_as_a_message() -> None:
    async with running_agent(ScriptedModel(["x"])) as agent, asked(agent) as client:
        answer = await say(client)
        await say(client, [*QUESTION, answer.choices[0].message, *QUESTION])
        await say(client, [*QUESTION, answer.choices[0].message.model_dump(), *QUESTION])
    assert [len(asked) for asked in agent.model.asked] == [1, 3, 3]
