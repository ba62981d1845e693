"""The plan: counts that can be checked by hand or against real modules."""

import json
from dataclasses import asdict, replace

import pytest

from train.cli import main
from train.config import SFTConfig, TrainConfig
from train.costs import SHAPES, Setting, Shape, decoder_flops, group_flops, passes, seen_flops
from train.plan import QUESTION, WRAPPING, Constants, check, largest, of_recipe, predict
from train.recipe import load, recipe_names

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
    assert eight["policy that plays, bf16"] == 2 * n and eight["reference"] == 2 * n / 8
    seven = predict(shape, Setting(gpus=8, servers=1), constants).memory
    assert seven["Adam"] == pytest.approx(8 * n / 7)
    moved = shape.adapters(16)
    adapted = predict(shape, Setting(gpus=8, lora=16), constants).memory
    assert adapted["Adam"] == moved and adapted["reference"] == 0
    assert predict(shape, Setting(gpus=8, offload=True), constants).memory["Adam"] == 0


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.endswith("_8b")])
def test_every_8b_recipe_fits_eight_cards_as_it_is(name):
    config = load(SFTConfig if name.startswith("sft") else TrainConfig, name)
    plan = predict(SHAPES["8b"], of_recipe(config, gpus=8), Constants())
    assert plan.fits, f"{plan.total / 2**30:.0f} of {plan.limit / 2**30:.0f} GiB"


def test_the_setting_of_a_recipe_is_its_longest_rollout():
    found = of_recipe(load(TrainConfig, "paragrpo_8b"), gpus=8)
    turns, readings = 3 * (2048 + WRAPPING), 3 * 5 * (512 + WRAPPING)
    assert found.completion == turns + readings + 64 + WRAPPING
    assert (found.frames, found.crop_frames, found.group, found.groups) == (64, 0, 8, 7)
    assert found.recompute and found.reference and found.text > QUESTION
    shown = of_recipe(load(TrainConfig, "longvt_8b"))
    assert (shown.frames, shown.crop_frames) == (128, 5 * 128)
    assert shown.completion == 5 * (2048 + WRAPPING) + 5 * WRAPPING + 64 + WRAPPING
    assert shown.branch(SHAPES["8b"]) == shown.completion + 640 * 51
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


def test_the_check_prints_how_far_off_the_prediction_is():
    setting = Setting(frames=4, groups=1)
    operations = passes(setting) * group_flops(TINY, setting)
    row = {"shape": asdict(TINY), "setting": asdict(setting), "method": "packed", "seconds": 2.0}
    lines = check([row], Constants(flops=operations))
    assert lines[1].split() == ["tiny", "packed", "4", "2.000", "1.000", "-50%"]


def test_the_command_prints_a_plan_and_takes_measured_constants(tmp_path, capsys):
    assert main(["plan", "--model", "8b", "--gpus", "8", "--frames", "512", "--group", "8"]) == 0
    said = capsys.readouterr().out
    assert "8.77 B parameters; 8 GPUs" in said and "largest that fits" in said
    assert "constants are assumed" in said
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"constants": asdict(Constants(source="a card")), "rows": []}))
    assert main(["plan", "--gpus", "8", "--measured", str(path)]) == 0
    assert "assumed" not in capsys.readouterr().out


def test_the_command_plans_a_recipe_and_overrides_it(capsys):
    assert main(["plan", "--recipe", "longvt_8b", "--gpus", "8"]) == 0
    said = capsys.readouterr().out
    assert "(128 frames)" in said and "7 groups of 16 x" in said
    assert "does NOT fit" not in said
    assert main(["plan", "--recipe", "longvt_8b", "--gpus", "8", "--no-recompute"]) == 0
    assert "does NOT fit" in capsys.readouterr().out
    assert main(["plan", "--recipe", "longvt"]) == 2
    assert "longvt" in capsys.readouterr().err


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
