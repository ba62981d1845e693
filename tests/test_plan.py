"""The plan: counts that can be checked by hand or against real modules."""

import json
from dataclasses import asdict, replace

import pytest

from train.cli import main
from train.costs import SHAPES, Setting, Shape, decoder_flops, group_flops, passes
from train.plan import Constants, check, largest, predict

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
