"""The plan: counts that can be checked by hand or against real modules."""

import json
import math
import weakref
from dataclasses import asdict, replace

import pytest
from support.recipes import kind_of

from train.cli import main
from train.common.errors import ConfigError
from train.config.recipe import load, recipe_names
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.lab.plan.constants import GIB, Constants
from train.lab.plan.costs import (
    SHAPES,
    Setting,
    Shape,
    decoder_flops,
    group_flops,
    kv_bytes,
    seen_flops,
    trees,
    update_flops,
)
from train.lab.plan.plan import HELD, LOGIT_COPIES, largest, predict
from train.lab.plan.recipes import QUESTION, SHIPPED, WRAPPING, of_recipe, shape_of
from train.lab.plan.report import check, fit, text

TINY = Shape("tiny", 8, 2, 4, 2, 4, 16, 100, True, 8, 2, 12, 1, patch=8, positions=16)


def test_parameters_are_those_of_the_published_models():
    found = {name: round(shape.parameters / 1e9, 2) for name, shape in SHAPES.items()}
    assert found == {"2b": 2.13, "4b": 4.44, "8b": 8.77}


def test_parameters_are_those_of_the_module():
    torch = pytest.importorskip("torch")
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 2, "head_dim": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 16,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2, "hidden_size": 8, "num_heads": 2, "intermediate_size": 12,
            "patch_size": 8, "out_hidden_size": 8, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    model.tie_weights()
    layers, tower = model.model.language_model.layers, model.model.visual.blocks
    assert TINY.block == sum(p.numel() for p in layers[0].parameters())
    assert TINY.vision_block == sum(p.numel() for p in tower[0].parameters())
    assert TINY.parameters == sum(p.numel() for p in model.parameters())


def test_operations_are_two_a_weight_and_four_a_pair():
    assert decoder_flops(TINY, tokens=3, pairs=0, scored=0) == 2 * 2 * TINY.block * 3
    assert decoder_flops(TINY, tokens=0, pairs=5, scored=0) == 4 * 2 * 4 * 4 * 5
    assert decoder_flops(TINY, tokens=0, pairs=0, scored=7) == 2 * 8 * 100 * 7


def test_packing_saves_nearly_the_group_where_the_prompt_is_long():
    shape = SHAPES["8b"]
    long, short = (Setting(frames=frames, completion=256) for frames in (512, 0))
    gains = [
        group_flops(shape, one, packed=False) / group_flops(shape, one) for one in (long, short)
    ]
    assert 7 < gains[0] < 8 and gains[1] < 2


def test_memory_is_divided_over_the_cards_that_train():
    shape, constants = SHAPES["8b"], Constants()
    n = shape.parameters
    one = predict(shape, Setting(gpus=1), constants).memory
    assert one["fp32 weights"] == 4 * n and one["Adam"] == 8 * n and one["gathered weights"] == 0
    eight = predict(shape, Setting(gpus=8), constants).memory
    assert eight["fp32 weights"] == 4 * n / 8 and eight["Adam"] == n and eight["gradients"] == n / 2
    assert eight["policy that plays"] == 2 * n
    assert eight["reference"] == 2 * n / 8 + 2 * shape.root  # its root stays gathered
    seven = predict(shape, Setting(gpus=8, servers=1), constants).memory
    assert seven["Adam"] == pytest.approx(8 * n / 7)
    moved = shape.adapters(16)
    adapted = predict(shape, Setting(gpus=8, lora=16), constants).memory
    assert adapted["Adam"] == moved and adapted["reference"] == 0
    assert predict(shape, Setting(gpus=8, offload=True), constants).memory["Adam"] == 0


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.endswith("_8b")])
def test_every_8b_recipe_fits_eight_cards_as_it_is(name):
    config = load(kind_of(name), name)
    plan = predict(SHAPES["8b"], of_recipe(config, gpus=8), Constants())
    most = max(plan.total, plan.playing, plan.apart)
    assert plan.fits, f"{most / 2**30:.0f} of {plan.limit / 2**30:.0f} GiB"
    assert plan.repeats < 1.25, "micro_batch_tokens repeats the prompt of the longest rollouts"


def test_the_setting_of_a_recipe_is_its_longest_rollout():
    found = of_recipe(load(TrainConfig, "paragrpo_8b"), gpus=8)
    turns, readings = 3 * (2048 + WRAPPING), 3 * 5 * (512 + WRAPPING)
    assert found.completion == turns + readings + 64 + WRAPPING
    assert (found.frames, found.crop_frames, found.group, found.groups) == (64, 0, 8, 7)
    assert found.recompute and found.reference and found.text > QUESTION
    shown = of_recipe(load(TrainConfig, "longvt_8b"))
    assert (shown.frames, shown.crop_frames) == (128, 5 * 128)
    assert shown.completion == 5 * (2048 + WRAPPING) + 5 * WRAPPING + 64 + WRAPPING
    assert shown.branch(SHAPES["8b"]) == shown.completion + 640 // 2 * 51
    imitated = of_recipe(load(SFTConfig, "sft_longvila_8b"))
    assert imitated.prompt(SHAPES["8b"]) + imitated.completion == 32768
    assert (imitated.group, imitated.groups, imitated.reference) == (1, 32, False)


def test_frames_of_crops_cost_tokens_and_the_tower_for_each_rollout():
    shape, constants = SHAPES["8b"], Constants()
    none, some = (Setting(gpus=8, frames=8, crop_frames=n, budget=1) for n in (0, 16))
    assert seen_flops(shape, some) == pytest.approx(seen_flops(shape, none) * (8 + 8 * 16) / 8)
    assert seen_flops(shape, some, packed=False) == pytest.approx(seen_flops(shape, none) * 8 * 3)
    before, after = (predict(shape, one, constants).memory for one in (none, some))
    assert after["vision tower"] == pytest.approx(3 * before["vision tower"])
    assert after["activations"] > before["activations"]
    two = replace(some, budget=some.prompt(shape) + 2 * some.branch(shape))
    tower = predict(shape, two, constants).memory["vision tower"]
    assert tower == pytest.approx(5 * before["vision tower"])


def test_the_feature_cache_counts_where_features_are_used_again():
    shape, constants = SHAPES["8b"], Constants()
    here, apart = (Setting(gpus=8, servers=n, feature_cache_gib=3.0) for n in (0, 1))
    frozen = replace(apart, freeze_vision=True)
    memory = [predict(shape, one, constants).memory for one in (here, apart, frozen)]
    assert [one["feature cache"] for one in memory] == [3 * 2**30, 0, 3 * 2**30]


def test_an_engine_beside_the_learner_counts_while_it_plays_and_where_it_stays_awake():
    shape, constants = SHAPES["8b"], Constants()
    none = predict(shape, Setting(gpus=8), constants)
    asleep, awake = (
        predict(shape, Setting(gpus=8, kv_gib=24.0, sleeps=s), constants) for s in (True, False)
    )
    engine = 2 * shape.parameters + 24 * 2**30
    assert none.memory["vLLM, awake"] == 0
    assert asleep.memory == none.memory
    assert awake.total == pytest.approx(none.total + engine)
    held = sum(none.memory[name] for name in HELD)
    assert none.playing == held + none.keys
    assert asleep.playing == awake.playing == pytest.approx(engine + held)
    full = predict(shape, Setting(gpus=8, kv_gib=100.0), constants)
    assert full.total == none.total < full.limit and not full.fits
    assert "while vLLM plays" in text(shape, full, constants)
    assert "while vLLM plays" not in text(shape, none, constants)


@pytest.mark.parametrize(
    ("overrides", "kv_gib", "sleeps"),
    [
        ([], 0, True),
        (["--agent.engine=vllm_server"], 0, True),
        (["--agent.engine=vllm"], 24, True),
        (["--agent.engine=vllm", "--agent.vllm.sleep=0"], 24, False),
        (["--agent.engine=vllm", "--run.asynchronous=true"], 24, False),
    ],
)
def test_the_setting_of_a_recipe_knows_its_engine(overrides, kv_gib, sleeps):
    found = of_recipe(load(TrainConfig, "paragrpo_8b", overrides), gpus=8)
    assert (found.kv_gib, found.sleeps) == (kv_gib, sleeps)
    assert predict(SHAPES["8b"], found, Constants()).fits


def test_sequence_parallelism_divides_activations_and_frames():
    shape, constants = SHAPES["8b"], Constants()
    one, four = (predict(shape, Setting(gpus=8, frames=512, sequence=s), constants) for s in (1, 4))
    assert four.memory["activations"] == pytest.approx(one.memory["activations"] / 4)
    assert four.memory["vision tower"] == pytest.approx(one.memory["vision tower"] / 4)
    # as many cards, as much work
    assert four.seconds["update"] == pytest.approx(one.seconds["update"])


def test_the_largest_setting_fits_and_twice_as_many_frames_do_not():
    shape, constants, setting = SHAPES["8b"], Constants(), Setting(gpus=8)
    found = largest(shape, setting, constants)
    assert found is not None and found.fits
    twice = replace(setting, frames=2 * found.setting.frames)
    for degree in (1, 2, 4, 8):
        assert not predict(shape, replace(twice, sequence=degree), constants).fits
    assert largest(shape, Setting(gpus=1), constants) is None


def test_a_small_micro_batch_repeats_the_prompt_and_the_plan_says_so():
    shape, constants = SHAPES["8b"], Constants()
    small, ample = (Setting(gpus=8, frames=512, budget=n) for n in (16384, 10**9))
    assert (trees(shape, small), trees(shape, ample)) == ([1] * 8, [8])
    cut, whole = (predict(shape, one, constants) for one in (small, ample))
    assert cut.seconds["update"] > 4 * whole.seconds["update"]
    assert cut.seconds["gathering weights"] == 8 * whole.seconds["gathering weights"]
    assert cut.memory["activations"] < whole.memory["activations"]
    assert whole.repeats == 1 and cut.repeats == pytest.approx(
        cut.seconds["update"] / whole.seconds["update"]
    )
    assert f"whole it takes --budget {ample.whole(shape)}" in text(shape, cut, constants)
    assert "repeat the prompt" not in text(shape, whole, constants)
    least = replace(small, budget=ample.whole(shape))
    assert trees(shape, least) == [8]
    assert trees(shape, replace(least, budget=least.budget - 1)) == [7, 1]


def test_a_run_says_once_that_prompts_are_repeated(capsys, monkeypatch):
    pytest.importorskip("torch")
    from support.packing import sample

    from train.packing import samples as trajectory

    samples = [sample([5, 6, 7], [1, 2], [1, 1]) for _ in range(3)]

    def said(limit, **process):
        for name, value in process.items():
            monkeypatch.setenv(name, value)
        trajectory.grow_trees(samples, limit)
        return capsys.readouterr().err

    monkeypatch.setattr(trajectory, "_warned", [])
    assert said(100) == "" and said(7) == "", "one tree; two, of which one has two branches"
    assert said(6, RANK="0", WORLD_SIZE="2") == "", "the last process speaks"
    first = said(6, RANK="1")
    assert "micro_batch_tokens=6 has no room for two of the 3 branches" in first
    assert "prompt of 3 tokens" in first and first.count("\n") == 1
    assert said(6) == ""


def test_short_groups_share_a_micro_batch():
    shape, constants = SHAPES["8b"], Constants()
    one, two = (Setting(groups=n, frames=4, completion=64, budget=16384) for n in (1, 2))
    assert 2 * one.whole(shape) < 16384
    both = [predict(shape, setting, constants).memory["activations"] for setting in (one, two)]
    assert both[1] == 2 * both[0]


def test_an_update_counts_what_is_computed_and_what_is_useful():
    setting = Setting(frames=4, groups=1, group=2, completion=8, text=16, size=(32, 48),
                      budget=10**9, reference=False)  # fmt: skip
    seen = seen_flops(TINY, setting)
    decoder = group_flops(TINY, setting) - seen
    p, b = setting.prompt(TINY), setting.branch(TINY)
    attention = decoder_flops(TINY, 0, p * p / 2 + 2 * (p * b + b * b / 2), 0)

    def both(**changed):
        other = replace(setting, **changed)
        return [update_flops(TINY, other, useful) for useful in (False, True)]

    assert both() == pytest.approx([4 * (decoder + seen), 3 * (decoder + seen)])
    assert both(recompute=False) == pytest.approx([3 * (decoder + seen)] * 2)
    assert both(freeze_vision=True) == pytest.approx([4 * decoder + seen, 3 * decoder + seen])
    adapted = [3 * decoder + attention + seen, 2 * decoder + attention + seen]
    assert both(lora=4) == pytest.approx(adapted)
    again = [one + decoder for one in adapted]
    assert both(lora=4, reference=True) == pytest.approx(again)
    assert both(reference=True) == pytest.approx([5 * (decoder + seen), 4 * (decoder + seen)])


def test_rollouts_through_transformers_hold_keys_and_values():
    shape, constants = SHAPES["8b"], Constants()
    setting = Setting(gpus=8, groups=16, group=4)
    found = predict(shape, setting, constants)
    tokens = setting.prompt(shape) + setting.branch(shape)
    assert found.rows == 8
    assert found.keys == kv_bytes(shape, 8 * tokens)
    assert "gradients" not in HELD  # they are freed at the end of the update
    held = sum(found.memory[name] for name in HELD)
    assert found.playing == pytest.approx(held + found.keys) and found.apart == 0
    read = predict(shape, replace(setting, beside=tokens), constants)
    assert read.keys == kv_bytes(shape, 8 * tokens * 2)
    longer = predict(shape, replace(setting, beside=60 * tokens), constants)
    assert longer.total < longer.limit < longer.playing and not longer.fits
    assert "does NOT fit (8 rows, keys and values" in text(shape, longer, constants)
    elsewhere = predict(shape, replace(setting, plays=False), constants)
    assert elsewhere.playing == 0 and elsewhere.seconds["decode"] == 0


def test_a_card_that_only_plays_has_the_policy_and_what_draws():
    shape, constants = SHAPES["8b"], Constants()
    n, setting = shape.parameters, Setting(gpus=8, servers=1, groups=7)
    drawn = predict(shape, setting, constants)
    assert drawn.playing == 0 and drawn.rows == 56
    assert drawn.apart == pytest.approx(2 * n + 2 * GIB + drawn.keys)
    assert "a GPU that only plays" in text(shape, drawn, constants)
    served = predict(shape, replace(setting, kv_gib=24.0, reference=False), constants)
    assert served.apart == pytest.approx(2 * 2 * n + 24 * GIB)
    assert served.memory["vLLM, awake"] == 0
    assert not predict(shape, replace(setting, kv_gib=100.0), constants).fits


def test_decoding_reads_the_weights_and_the_keys_for_each_token():
    shape, constants = SHAPES["8b"], Constants(bandwidth=1e12)
    setting = Setting(gpus=8, groups=8)
    mean = setting.prompt(shape) + setting.branch(shape) / 2
    read = 2 * shape.parameters + 8 * kv_bytes(shape, mean)
    decode = predict(shape, setting, constants).seconds["decode"]
    assert decode == pytest.approx(setting.completion * read / 1e12)


def test_split_and_supervised_recipes_play_where_they_do():
    split = of_recipe(load(TrainConfig, "paragrpo_8b_split"), gpus=8)
    assert (split.servers, split.kv_gib, split.sleeps, split.plays) == (1, 24, True, True)
    away = ["--agent.vllm.url=http://other:8000"]
    assert not of_recipe(load(TrainConfig, "paragrpo_8b_split", away), gpus=8).plays
    assert not of_recipe(load(SFTConfig, "sft_paravt_8b"), gpus=8).plays
    shape, alone = SHAPES["8b"], of_recipe(load(TrainConfig, "paragrpo_8b"), gpus=8)
    assert alone.beside == 5 * (QUESTION + WRAPPING + 16 // 2 * alone.frame_tokens(shape) + 512)
    slow = ["--agent.engine=transformers"]
    pictures = [*slow, "--agent.frames_as=image"]
    longvt, video = (
        predict(shape, of_recipe(load(TrainConfig, "longvt_8b", how), gpus=8), Constants())
        for how in (pictures, slow)
    )
    assert longvt.total < longvt.limit < longvt.playing
    assert video.playing < video.limit


def test_whole_gradients_and_kept_weights_count_on_several_cards():
    shape, constants = SHAPES["8b"], Constants()
    n, eight = shape.parameters, Setting(gpus=8)
    freed, kept = (predict(shape, replace(eight, reshard=r), constants) for r in (True, False))
    name = "unsharded gradients"
    assert freed.memory[name] == 6 * (shape.root + shape.block)
    assert predict(shape, Setting(gpus=1), constants).memory[name] == 0
    assert predict(shape, replace(eight, lora=8), constants).memory[name] == 0
    assert freed.memory["gathered weights"] == 2 * shape.root + 4 * shape.block
    assert kept.memory["gathered weights"] == 2 * n
    assert kept.memory["reference"] == 2 * n / 8 + 2 * n
    assert kept.seconds["gathering weights"] < freed.seconds["gathering weights"]
    config = load(TrainConfig, "paragrpo_8b", ["--parallel.reshard=false"])
    assert not of_recipe(config, gpus=8).reshard


def test_the_scorer_holds_as_many_copies_of_the_logits_as_the_plan_says():
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    from train.learner.logprobs import TokenLogprobs

    class Live(TorchDispatchMode):
        """Counts the bytes of tensors that are made inside."""

        now = peak = 0

        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            made = function(*arguments, **(named or {}))
            several = made if isinstance(made, (tuple, list)) else (made,)
            for one in (tensor for tensor in several if isinstance(tensor, torch.Tensor)):
                storage = one.untyped_storage()
                if storage._cdata not in known:
                    known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
            self.peak = max(self.peak, self.now)
            return made

        def gone(self, key, size):
            known.discard(key)
            self.now -= size

    class Policy:
        forbidden_ids = (1, 2)
        logits = staticmethod(lambda hidden: torch.nn.functional.linear(hidden, head))

    known, tokens, words = set(), 64, 5000
    head = torch.randn(words, 4, dtype=torch.bfloat16, requires_grad=True)
    hidden = torch.randn(2 * tokens, 4, dtype=torch.bfloat16, requires_grad=True)
    scorer = TokenLogprobs.__new__(TokenLogprobs)
    torch.nn.Module.__init__(scorer)
    scorer.vlm, scorer.temperature, scorer.logit_chunk = Policy(), 0.7, tokens
    with Live() as live:
        logprobs, _ = scorer._scores(hidden, torch.zeros(2 * tokens, dtype=torch.long))
        logprobs.sum().backward()
    assert live.peak / (4 * tokens * words) == pytest.approx(LOGIT_COPIES, abs=0.2)


def measured_row(seconds=2.0, size=0.0, method="packed", **changed):
    setting = replace(Setting(frames=4, groups=1, budget=10**9, plays=False), **changed)
    row = {"shape": asdict(TINY), "setting": asdict(setting), "method": method, "seconds": seconds}
    return setting, {**row, "bytes": size}


def test_the_check_prints_how_far_off_seconds_and_bytes_are():
    setting, row = measured_row()
    constants = Constants(flops=update_flops(TINY, setting))
    said = check([row], constants)[1].split()
    assert said == ["tiny", "full", "packed", "4", "2.000", "1.000", "-50%", "not", "measured"]
    total = predict(TINY, setting, constants).total
    said = check([{**row, "bytes": 2 * total}], constants)[1].split()
    assert said[-3:] == [f"{total / 2**19:.1f}", f"{total / 2**20:.1f}", "-50%"]
    cut, row = measured_row(method="repeated")
    constants = Constants(flops=update_flops(TINY, replace(cut, budget=1)))
    assert check([row], constants)[1].split()[5:7] == ["1.000", "-50%"]


def test_constants_are_fitted_to_rows_and_each_row_is_checked_by_the_others():
    true, rows = Constants(flops=3e6, kept=50.0), []
    for frames in (2, 4, 8):
        setting, row = measured_row(frames=frames)
        size = predict(TINY, setting, true).total
        rows.append({**row, "seconds": update_flops(TINY, setting) / 3e6, "bytes": size})
    found = fit(rows, "a card")
    assert (found.flops, found.kept) == (pytest.approx(3e6), pytest.approx(50.0))
    assert found.fitted == ("flops", "kept")
    assert found.assumed == ("bandwidth", "link", "reserve")
    assert all(said.count("+0%") + said.count("-0%") == 2 for said in check(rows)[1:])
    rows[0]["seconds"] *= 2
    assert ["-50%" in check(rows[:2])[1], "+100%" in check(rows[:2])[2]] == [True, True]
    blind = fit([{**row, "bytes": 0.0} for row in rows], "a CPU")
    assert (blind.fitted, blind.kept) == (("flops",), Constants().kept)
    assert fit([], "nothing") == Constants()


def test_the_command_prints_a_plan_and_takes_measured_constants(tmp_path, capsys):
    assert main(["plan", "--model", "8b", "--gpus", "8", "--frames", "512", "--group", "8"]) == 0
    said = capsys.readouterr().out
    assert "8.77 B parameters; 8 GPUs" in said and "largest that fits" in said
    assert "constants are assumed: flops, bandwidth, link, kept, reserve" in said
    path = tmp_path / "gpu.json"
    _, row = measured_row()
    constants = asdict(Constants(source="a card", fitted=("flops",)))
    path.write_text(json.dumps({"constants": constants, "rows": [row]}))
    assert main(["plan", "--gpus", "8", "--measured", str(path)]) == 0
    known = "measured on a card: flops; assumed: bandwidth, link, kept, reserve"
    assert known in capsys.readouterr().out
    assert main(["plan", "--check", str(path)]) == 0
    assert known in capsys.readouterr().out


def test_the_command_plans_a_recipe_and_overrides_it(capsys):
    assert main(["plan", "--recipe", "longvt_8b", "--gpus", "8"]) == 0
    said = capsys.readouterr().out
    assert "(128 frames)" in said and "7 groups of 16 x" in said
    assert "does NOT fit" not in said
    assert main(["plan", "--recipe", "longvila_8b", "--budget", "16384", "--no-reshard"]) == 0
    assert "cut into 8 trees" in capsys.readouterr().out
    assert main(["plan", "--recipe", "longvt_8b", "--gpus", "8", "--no-recompute"]) == 0
    assert "does NOT fit" in capsys.readouterr().out
    assert main(["plan", "--recipe", "longvt"]) == 2
    assert "longvt" in capsys.readouterr().err


def test_a_recipe_says_its_model_and_its_gpus(capsys):
    assert main(["plan", "--recipe", "paragrpo_8b_split"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("8b: 8.77 B parameters; 8 GPUs (1 serve)")
    assert main(["plan", "--recipe", "paragrpo_8b", "--gpus", "16", "--model", "4b"]) == 0
    assert capsys.readouterr().out.startswith("4b: 4.44 B parameters; 16 GPUs (0 serve)")
    assert main(["plan", "--recipe", "paragrpo_mini"]) == 0
    assert capsys.readouterr().out.startswith("paravt_mini: 0.00 B parameters; 1 GPUs")
    assert main(["plan", "--recipe", "sft_mini"]) == 2
    assert "the shape of '' is not known here: give --model" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.endswith("_8b")])
def test_every_8b_recipe_says_for_how_many_gpus_it_is(name):
    config = load(kind_of(name), name)
    assert of_recipe(config) == of_recipe(config, gpus=8)
    start = config.agent.checkpoint
    if start.startswith("runs/"):  # what the recipe of the first stage makes
        first = start.removeprefix("runs/")
        start = load(kind_of(first), first).agent.checkpoint
    assert shape_of(start) is SHAPES["8b"]


def test_gpus_that_a_recipe_does_not_say_are_those_of_its_layout():
    layout = {"parallel.layout": "disaggregated", "parallel.generator_ranks": 2}
    config = load(TrainConfig, "paragrpo_mini", layout | {"parallel.sequence": 3})
    assert (of_recipe(config).gpus, of_recipe(config).servers) == (5, 2)
    assert of_recipe(load(TrainConfig, "paragrpo_mini")).gpus == 1


def test_the_shape_of_a_folder_is_that_of_its_weights():
    safetensors = pytest.importorskip("safetensors")
    shape = shape_of("paravt_mini")
    with safetensors.safe_open(SHIPPED / "paravt_mini" / "model.safetensors", "numpy") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    assert shape.parameters == sum(math.prod(size) for size in sizes)
    assert (shape.patch, shape.merge, shape.tied) == (16, 2, True)
    assert shape_of(str(SHIPPED / "paravt_mini")) == shape


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "8b"), ("qwen3-vl-2b", "2b"), ("Qwen/Qwen3-VL-32B", None),
        ("Qwen/Qwen2.5-VL-7B-Instruct", None), ("", None),
    ],
)  # fmt: skip
def test_a_hub_name_that_is_not_known_asks_for_the_model(name, shape):
    if shape:
        assert shape_of(name) is SHAPES[shape]
    else:
        with pytest.raises(ConfigError, match="is not known here: give --model, one of 2b, 4b"):
            shape_of(name)


def test_a_folder_of_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ConfigError, match=r"is not of a Qwen3-VL \(KeyError\('text_config'\)\)"):
        shape_of(str(tmp_path))


def test_settings_that_cannot_be_planned_are_refused(capsys):
    assert main(["plan", "--model", "9b"]) == 2
    assert "choose from 2b, 4b, 8b" in capsys.readouterr().err
    assert main(["plan", "--gpus", "8", "--sequence", "3"]) == 2
    assert "does not divide the 8 GPUs" in capsys.readouterr().err
    for name in ("gpus", "group", "groups", "completion", "sequence"):
        assert main(["plan", f"--{name}", "0"]) == 2
        assert f"--{name} 0: at least 1" in capsys.readouterr().err
    for name in ("frames", "servers", "lora", "card-gb"):
        assert main(["plan", f"--{name}", "-1"]) == 2
        assert "may not be negative" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["no JSON", "{}", "[]", '{"constants": 3, "rows": 3}'])
def test_a_file_that_is_no_measurement_is_refused(content, tmp_path, capsys):
    path = tmp_path / "gpu.json"
    path.write_text(content)
    for flag in ("--measured", "--check"):
        assert main(["plan", flag, str(path)]) == 2
        assert "is not what benchmarks/gpu.py --json writes" in capsys.readouterr().err


def test_frames_shown_as_video_are_half_the_tokens_and_half_the_tower():
    images = Setting(frames=65, crop_frames=10, group=2, text=0, completion=0, budget=10**9)
    video, shape = replace(images, together=2), SHAPES["8b"]
    assert (images.prompt(shape), images.branch(shape)) == (65 * 51, 10 * 51)
    assert (video.prompt(shape), video.branch(shape)) == (33 * 51, 5 * 51)
    towers = seen_flops(shape, video) / seen_flops(shape, images)
    assert towers == pytest.approx((33 + 2 * 5) / (65 + 2 * 10))
    recipe = of_recipe(load(TrainConfig, "paragrpo_8b"))
    pictures = of_recipe(load(TrainConfig, "paragrpo_8b", ["--agent.frames_as=image"]))
    assert recipe == replace(pictures, together=2, beside=recipe.beside)
    assert recipe.beside == pictures.beside - 5 * 8 * 51
