"""verl's real tool loop calls our tool; skipped where verl is not installed."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from support.builders import SIZE, make_task, write_manifest

pytest.importorskip("verl")
pytest.importorskip("ray")

from omegaconf import OmegaConf
from verl.experimental.agent_loop.tool_agent_loop import AgentData, ToolAgentLoop
from verl.experimental.agent_loop.tool_parser import FunctionCall
from verl.tools.base_tool import BaseTool
from verl.tools.tool_registry import initialize_tools_from_config

START = {"task_id": "colour", "frame_budget": 3, "seed": 5}


@pytest.fixture
def tool(clip, tmp_path):
    """The tool as verl makes it of its YAML file."""
    tasks = write_manifest(tmp_path / "tasks.jsonl", [make_task(clip)])
    game = {
        "tasks": tasks, "tasks_kwargs": {"root": str(clip).rpartition("/")[0]}, "max_crops": 3,
        "frame_size": list(SIZE), "frames_per_crop": 2, "frame_budget": 4, "max_turns": 2,
    }  # fmt: skip
    config = {"class_name": "train.adapters.verl_tool.CropTool"}
    config["config"] = {"type": "native", "game": game}
    path = tmp_path / "tools.yaml"
    OmegaConf.save(OmegaConf.create({"tools": [config]}), path)
    (made,) = initialize_tools_from_config(str(path))
    return made


def rollout():
    return AgentData([], None, None, None, None, {}, "request", {})


def turn(tool, data, *arguments, start=START):
    """One turn of a rollout, its calls as verl's loop makes them."""
    loop = SimpleNamespace(
        tools={tool.name: tool}, max_tool_response_length=10_000, tool_response_truncate_side="left"
    )
    kwargs = {tool.name: {"create_kwargs": start}}
    calls = [FunctionCall(name=tool.name, arguments=json.dumps(one)) for one in arguments]

    async def gather():
        return await asyncio.gather(
            *(ToolAgentLoop._call_tool(loop, call, kwargs, data) for call in calls)
        )

    return [answer for answer, _, _ in asyncio.run(gather())]


def window(start, end):
    return {"start_time": start, "end_time": end}


def test_the_calls_of_a_turn_are_one_step_and_the_episode_hangs_on_the_rollout(tool):
    assert isinstance(tool, BaseTool) and tool.name == "crop_video"
    data = rollout()
    one, two = turn(tool, data, window(1, 2), window(30, 10))
    assert [picture.size for picture in one.image] == [(SIZE[1], SIZE[0])] and one.video is None
    assert one.text == "Crop 1, 1.0-2.0 s: <1.5 seconds><picture 1>"
    assert two.image is None and "reversed" in two.text
    episode = data.paravt._row
    assert episode.turn == 1 and data.extra_fields == {}
    (third,) = turn(tool, data, window(4, 6))
    assert len(third.image) == 2 and "<picture 2>" in third.text
    assert data.paravt._row is episode and episode.turn == 2
    assert tool._starts == {}


def test_two_rollouts_play_two_episodes(tool):
    one, two = rollout(), rollout()
    turn(tool, one, window(1, 2))
    turn(tool, two, window(1, 2), start={**START, "frame_budget": 2})
    assert one.paravt._row.frame_budget == 3 and two.paravt._row.frame_budget == 2
    assert one.paravt._row.turn == two.paravt._row.turn == 1


def test_what_a_model_writes_wrongly_is_a_status(tool):
    texts = [
        answer.text
        for answer in turn(tool, rollout(), {"start": "now"}, window("a", 3), {"x": [1] * 50})
    ]
    assert all(texts) and not any("Error executing" in text for text in texts)
    assert "malformed" in texts[0]


def test_after_the_last_turn_calls_are_told_that_it_is_over(tool):
    data = rollout()
    for _ in range(3):
        turn(tool, data, window(1, 2))
    (answer,) = turn(tool, data, window(1, 2))
    assert answer.text == "The episode is over: no more calls are allowed."
    assert answer.image is None


def test_a_row_without_a_task_is_told_to_verl(tool):
    (answer,) = turn(tool, rollout(), window(1, 2), start={})
    assert "a row needs extra_info.tools_kwargs.crop_video.create_kwargs" in answer.text
    with pytest.raises(ValueError, match="kept on agent_data"):
        asyncio.run(tool.execute("x", window(1, 2)))
