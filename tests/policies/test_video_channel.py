"""Frames as video: tokens, patches, positions and logits of the model's own processor."""

import json
import shutil

import numpy as np
import pytest
import torch
from support.builders import ListTasks, make_task
from support.video import IMAGE, VIDEO, as_we_do, assert_the_processors, metadata
from support.videos import TICKS, write_cut, write_video
from transformers import Qwen2_5_VLConfig

from agents.config import AgentConfig, Limits
from agents.model import video
from agents.model.agent import TransformersAgent
from agents.model.mini import MiniConfig, build_mini
from agents.model.sampling import TransformersSampler
from agents.model.video import SETTINGS_FILE, VideoChannel
from agents.model.vlm import CheckpointError, VisionLanguageModel
from agents.text.clips import clip_metadata, stamps, temporal_patches
from agents.text.context import TokenContext
from agents.text.conversation import ConversationAgent, Sampled
from paravt_env.protocol import Role, render_completion
from paravt_env.protocol.parts import ClipRef, FrameRef, evidence_parts, overview_parts
from paravt_env.protocol.styles import COMPACT, PARAVT
from paravt_env.spaces import batch_actions, unbatch
from train.rollout.play import play
from train.rollout.starts import Start

SHAPE = MiniConfig(64, 3, 4, 96, 32, 2, 2, 48, patch_size=8, vocabulary=300, numbers=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_mini(tmp_path_factory.mktemp("mini"), ["where is the red circle"] * 4, SHAPE)


@pytest.fixture(scope="module")
def vlm(folder):
    return VisionLanguageModel.load(folder)


def frames(count, height=32, width=48, seed=0):
    rng = np.random.default_rng((seed, count, height))
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


CLIPS = {
    "one frame": [(1, 32, 48)],
    "a pair": [(2, 32, 48)],
    "an odd count": [(5, 32, 48)],
    "overview and crops of other sizes": [(8, 32, 48), (3, 48, 32), (1, 16, 16)],
}


@pytest.mark.parametrize("case", CLIPS)
def test_clips_between_text_are_the_processors(folder, vlm, case):
    context, clips, text = TokenContext(vlm), [], ""
    for number, size in enumerate(CLIPS[case]):
        clip = frames(*size, seed=number)
        times = 3.07 * number + np.sort(np.random.default_rng(number).uniform(0, 60, len(clip)))
        clips.append((clip, times.tolist()))
        context.append_text(f"part {number}: ", Role.prompt)
        context.append_clip(clip, times, Role.prompt)
        text += f"part {number}: {VIDEO}"
    context.append_text("\nwhich?", Role.prompt)
    assert_the_processors(folder, vlm, context, clips, text=text + "\nwhich?")


def test_images_and_videos_stand_side_by_side(folder, vlm):
    context, clip, pictures = TokenContext(vlm), frames(3), frames(2, seed=1)
    parts = ["a ", FrameRef(3), "b", ClipRef((0, 1, 2), (0.2, 1.0, 9.96)), FrameRef(4), "?"]
    context.append_parts(parts, np.concatenate([clip, pictures]), Role.prompt)
    text = f"a {IMAGE}b{VIDEO}{IMAGE}?"
    assert_the_processors(folder, vlm, context, [(clip, (0.2, 1.0, 9.96))], pictures, text)
    pads = [context.ids.count(pad) for pad in vlm.visual_ids]
    assert pads == [2 * 6, 2 * 6] and context.counts()["frames"] == 5
    assert context.counts()["visual_tokens"] == 24


class Told(ConversationAgent):
    """Says the given turns and reads every crop as "seen"."""

    def __init__(self, vlm, limits, *turns, **settings):
        config = AgentConfig(frames_as="video", forced_prefix="", **settings)
        super().__init__(vlm, config, limits)
        self.turns = list(turns)
        self.views = []

    def sampled(self, text):
        ids = self.vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
        return Sampled([*ids, self.stop_id], [-1.0] * (len(ids) + 1))

    def act(self, observations, rows):
        self.views += [unbatch(observations, row) for row in rows]
        return super().act(observations, rows)

    def draw(self, turns):
        return [self.sampled(self.turns.pop(0)) for _ in turns]

    def read(self, readings):
        return [self.sampled("seen") for _ in readings]


def shown(view, window):
    """Frames and times that an observation has of a window."""
    where = view["window"] == window
    return view["frames"][where], view["timestamps"][where].tolist()


TURNS = (
    render_completion("look", [(3, 6), (20, 20.5)]),
    render_completion("and again", [(7, 9.5)]),
    render_completion("so", answer="B"),
)


@pytest.mark.parametrize("style", ["paravt", "compact", "qwen3vl"])
def test_a_branch_of_many_turns_is_the_processors(folder, vlm, make_vector, style):
    env = make_vector(1, frame_size=(32, 48))
    limits = Limits.of(env.simulation.settings)
    agent = Told(vlm, limits, *TURNS, prompt_style=style, evidence="frames")
    play(env, agent, [Start("colour", 5)])
    first, second, third = agent.views
    clips = [shown(first, 0), shown(second, 1), shown(second, 2), shown(third, 1)]
    assert [len(times) for _, times in clips] == [5, 3, 1, 3]
    (main,) = agent.trajectories(0)
    context = agent._rows[0].context
    assert_the_processors(folder, vlm, context, clips)
    assert len(main.prompt_images) == 3 and len(main.branch_images) == 2 + 1 + 2
    assert agent.usage(0)["frames"] == 12 and agent.usage(0)["visual_tokens"] == 8 * 6


def test_a_reading_of_a_crop_is_the_processors(folder, vlm, make_vector):
    env = make_vector(1, frame_size=(32, 48))
    agent = Told(vlm, Limits.of(env.simulation.settings), TURNS[0], TURNS[2])
    play(env, agent, [Start("colour", 4)])
    after = agent.views[1]
    for number, context in enumerate(agent._rows[0].readings, 1):
        assert_the_processors(folder, vlm, context, [shown(after, number)])


def test_half_the_visual_tokens_of_images(vlm):
    clip = frames(64)
    as_video, as_images = TokenContext(vlm), TokenContext(vlm)
    as_video.append_clip(clip, range(64), Role.prompt)
    for frame in clip:
        as_images.append_image(frame, Role.prompt)
    one, other = (c.counts()["visual_tokens"] for c in (as_video, as_images))
    assert 2 * one == other == 64 * 6


def test_an_image_is_a_pair_of_equal_frames(vlm):
    image = frames(1)[0]
    alone, doubled = vlm.encode_images([image, np.stack([image, image])])
    assert torch.equal(alone, doubled)


def test_the_feature_cache_knows_a_pair_by_both_frames(vlm):
    a, b, c = frames(3)
    cache = vlm.features
    cache.clear()
    before = cache.encoded
    pairs = [np.stack(two) for two in ((a, b), (b, a), (a, c), (a, b))]
    found = cache.encode(pairs)
    assert cache.encoded - before == 3 and torch.equal(found[0], found[3])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(torch.cat(found), torch.cat(vlm.encode_images(pairs)))


def test_sampling_in_turns_equals_one_pass_over_all(vlm):
    clip, contexts = frames(5), [TokenContext(vlm), TokenContext(vlm)]
    for count, context in zip((5, 2), contexts, strict=True):
        context.append_text("look ", Role.prompt)
        context.append_clip(clip[:count], range(count), Role.prompt)
        context.append_text("?", Role.prompt)
        context.close_prompt()
    sampler = TransformersSampler(vlm, seed=3)
    session = None
    for turn in range(2):
        drawn, session = sampler.resume(session, contexts, [4, 6], 0.7)
        for context, one in zip(contexts, drawn, strict=True):
            context.append(one.ids, int(Role.text), one.logprobs)
            context.append_text("\nmore ", Role.response)
            if not turn:
                context.append_clip(frames(3, seed=1), [9.0, 9.5, 10.0], Role.response)
    for context in contexts:
        one = context.freeze()
        logits = as_we_do(vlm, context)[1]
        logits[:, list(vlm.forbidden_ids)] = -torch.inf
        ids = torch.tensor(context.ids)
        logprobs = torch.log_softmax(logits / 0.7, -1)[:-1].gather(1, ids[1:, None])[:, 0].numpy()
        branch = logprobs[len(one.prompt_ids) - 1 :]
        np.testing.assert_allclose(one.logprobs[one.loss_mask], branch[one.loss_mask], atol=1e-5)
        assert [image.shape[0] for image in one.branch_images] == [2, 2]


def test_an_episode_of_video_plays_and_encodes_a_groups_pairs_once(vlm, make_vector):
    env = make_vector(2, frame_size=(32, 48))
    config = AgentConfig(frames_as="video", prompt_style="compact", max_new_tokens=8)
    agent = TransformersAgent(vlm, config, Limits.of(env.simulation.settings))
    vlm.features.clear()
    before = vlm.features.encoded
    one, other = play(env, agent, [Start("colour", 7), Start("colour", 7)])
    assert vlm.features.encoded - before == 4
    for rollout in (one, other):
        assert [image.shape for image in rollout.trajectories[0].prompt_images] == [
            (2, 32, 48, 3)
        ] * 4


# --- times ------------------------------------------------------------------------------------


def test_stamps_are_those_of_the_processor():
    times = [0.04, 0.16, 0.949, 1.05, 59.96, 60.0, 7200.25]
    assert stamps(times) == [
        "<0.1 seconds>", "<1.0 seconds>", "<60.0 seconds>", "<7200.2 seconds>",
    ]  # fmt: skip
    assert stamps([0.3]) == ["<0.3 seconds>"]
    assert clip_metadata(times) == metadata(times)


def variable(folder):
    gaps = np.random.default_rng(2).integers(200, 9000, 60)
    ticks = 5 * TICKS + np.cumsum(gaps) - gaps[0]
    return write_video(folder / "vfr.mp4", ticks=ticks.tolist())


def cut(folder):
    return write_cut(write_video(folder / "whole.mp4"), folder / "cut.mp4", start=1.5)


def wrapped(folder):
    """A transport stream whose 33-bit clock starts again in its middle."""
    ticks = [(2**33 - 45_000) * TICKS // 90_000 + i * TICKS // 24 for i in range(72)]
    return write_video(folder / "wrapped.ts", ticks=ticks)


@pytest.mark.parametrize("make", [variable, cut, wrapped])
def test_stamps_metadata_and_info_agree_on_files_of_all_kinds(tmp_path, vlm, make, make_vector):
    path = str(make(tmp_path))
    env = make_vector(1, tasks=ListTasks([make_task(path)]), frame_size=(32, 48))
    limits = Limits.of(env.simulation.settings)
    agent = Told(vlm, limits, render_completion("look", [(0.5, 2.5)]), TURNS[2], evidence="frames")
    observation, _ = env.reset(seed=0, options={"frame_budget": 6})
    agent.begin([0])
    (call,) = agent.act(observation, [0])
    observation, *_, info = env.step(batch_actions([call.action], 3))
    agent.act(observation, [0])
    text = vlm.tokenizer.decode(agent._rows[0].context.ids)
    told = [float(part.split(" seconds>")[0]) for part in text.split("<") if " seconds>" in part]
    overview = shown(agent.views[0], 0)[1]
    crop = info["crops"][0][0]["timestamps"]
    assert crop == shown(agent.views[1], 1)[1] and len(crop) == 2
    expected = []
    for times in (overview, crop):
        indices = clip_metadata(times)["frames_indices"]
        np.testing.assert_allclose(np.array(indices) / 1000, times, atol=5e-4)
        expected += [float(np.mean(times[i : i + 2])) for i in range(0, len(times), 2)]
    np.testing.assert_allclose(told, expected, atol=0.0501)


# --- bad input --------------------------------------------------------------------------------


def copied(folder, where):
    shutil.copytree(folder, where)
    return where


def test_a_checkpoint_without_a_video_processor_is_refused(folder, tmp_path):
    bare = copied(folder, tmp_path / "bare")
    (bare / SETTINGS_FILE).unlink()
    vlm = VisionLanguageModel.load(bare)
    assert TransformersAgent(vlm, AgentConfig()).frames_as == "image"
    with pytest.raises(CheckpointError, match=f"no video processor: it lacks {SETTINGS_FILE}"):
        TransformersAgent(vlm, AgentConfig(frames_as="video"))
    with pytest.raises(CheckpointError, match="no video processor"):
        VisionLanguageModel.load("paravt_mini").video  # noqa: B018


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"video_processor_type": "Qwen2VLVideoProcessor"}, "those of a Qwen2VLVideoProcessor"),
        ({"patch_size": 14}, "patch_size=14 and its vision tower 8"),
        ({"temporal_patch_size": 4}, "temporal_patch_size=4 and its vision tower 2"),
    ],
)
def test_settings_of_another_model_are_refused(folder, tmp_path, changed, message):
    other = copied(folder, tmp_path / "other")
    settings = json.loads((other / SETTINGS_FILE).read_text())
    (other / SETTINGS_FILE).write_text(json.dumps(settings | changed))
    with pytest.raises(CheckpointError, match=message):
        VisionLanguageModel.load(other).video  # noqa: B018


def test_settings_inside_the_processors_file_are_found_and_saved(folder, tmp_path):
    other = copied(folder, tmp_path / "other")
    settings = json.loads((other / SETTINGS_FILE).read_text()) | {"image_mean": [0.4, 0.5, 0.6]}
    (other / SETTINGS_FILE).unlink()
    (other / "processor_config.json").write_text(json.dumps({"video_processor": settings}))
    vlm = VisionLanguageModel.load(other)
    assert vlm.video.mean.tolist() == pytest.approx([102.0, 127.5, 153.0])
    vlm.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / SETTINGS_FILE).read_text()) == settings


def test_another_familys_checkpoint_is_refused(vlm):
    class Other:
        config = Qwen2_5_VLConfig()

    with pytest.raises(CheckpointError, match="needs a Qwen3-VL checkpoint: a qwen2_5_vl one"):
        VideoChannel(Other(), vlm.video_settings)


def test_frames_that_do_not_fit_and_clips_without_frames_are_refused(vlm):
    context = TokenContext(vlm)
    with pytest.raises(ValueError, match="set frame_size to multiples of 16"):
        context.append_clip(frames(3, 40, 48), [0, 1, 2], Role.prompt)
    with pytest.raises(ValueError, match="a clip of 0 frames"):
        context.append_clip(frames(0), [], Role.prompt)
    with pytest.raises(ValueError, match="a clip of 3 frames with 2 times"):
        context.append_clip(frames(3), [0.0, 1.0], Role.prompt)
    with pytest.raises(ValueError, match=r"agent\.frames_as 'film' is not one of image, video"):
        AgentConfig(frames_as="film")


def test_a_clip_beyond_the_checkpoints_bounds_is_said_once(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(video, "_warned", set())
    other = copied(folder, tmp_path / "other")
    settings = json.loads((other / SETTINGS_FILE).read_text())
    size = {"shortest_edge": 2 * 32 * 48, "longest_edge": 4 * 32 * 48}
    (other / SETTINGS_FILE).write_text(json.dumps(settings | {"size": size}))
    vlm = VisionLanguageModel.load(other)
    capsys.readouterr()
    for count in (1, 2, 3, 4):
        vlm.video.patches(frames(count))
    assert not capsys.readouterr().err
    for _ in range(2):
        assert len(vlm.video.patches(frames(5))) == 3
    assert capsys.readouterr().err.count("a clip of 5 frames of 32 x 48 pixels is outside") == 1


def test_temporal_patches_repeat_the_last_frame_and_copy_nothing_they_need_not():
    clip = frames(3)
    pair, last = temporal_patches(clip)
    assert np.shares_memory(pair, clip) and np.shares_memory(last, clip)
    assert np.array_equal(last[0], clip[2]) and np.array_equal(last[1], clip[2])
    (four,) = temporal_patches(clip, 4)
    assert [int(np.flatnonzero((clip == f).all((1, 2, 3)))[0]) for f in four] == [0, 1, 2, 2]


# --- parts ------------------------------------------------------------------------------------


def test_the_parts_of_a_video_have_no_text_before_its_frames():
    view = {
        "window": np.array([0, 0, 0, -1]),
        "timestamps": np.array([1.0, 2.0, 4.0, 0.0]),
        "video": {"duration": 41.0, "fps": 24.0, "width": 128, "height": 72},
        "question": "Which?",
    }
    clip = ClipRef((0, 1, 2), (1.0, 2.0, 4.0))
    assert overview_parts(COMPACT, view, "video") == [clip, "\nWhich?"]
    first, *rest = overview_parts(PARAVT, view, "video")
    assert first.endswith("3 of its frames:\n") and rest == [clip, "\nWhich?"]
    after = view | {"window": np.array([2, 2, -1, -1]), "crop_status": np.array([3, 1, 0])}
    after |= {"feedback": ""}
    parts = evidence_parts(COMPACT, after, [(0, 0), (1, 3)], None, "video")
    assert parts == ["1 reversed\n2 ", ClipRef((0, 1), (1.0, 2.0)), "\n"]
