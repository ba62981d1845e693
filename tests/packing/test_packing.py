"""Packing: literal ids, positions, masks and indices of small trees."""

import numpy as np
import pytest
from support.packing import sample

from agents.base import Trajectory
from agents.model.vlm import rope_positions
from train.packing.pack import pack, padding_id, tree_mask
from train.packing.samples import MOST_PADDING, Sample, grow_trees, micro_batches
from train.packing.shares import idle

IMAGE = 99


class Squares:
    """Geometry of a model whose tokens are single pixels: an H x W image is H * W tokens."""

    visual_ids = (IMAGE,)

    def image_grid(self, height, width):
        return 1, height, width

    def image_token_count(self, height, width):
        return height * width

    def rope_positions(self, ids, grids, start=0):
        return rope_positions(ids, IMAGE, grids, 1, start)


def image(height, width, value):
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_two_branches_share_one_prompt():
    samples = [
        sample([5, 6, 7], [1, 2], [1, 1], weight=0.5),
        sample([5, 6, 7], [3, 4, 8, 9], [0, 1, 1, 0]),
    ]
    (tree,) = grow_trees(samples, 100)
    batch = pack([tree], Squares())
    assert batch.ids.tolist() == [[5, 6, 7, 1, 2, 3, 4, 8]]
    assert batch.positions[0].tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2]]
    assert batch.source.tolist() == [2, 3, 5, 6]
    assert batch.target.tolist() == [1, 2, 4, 8]
    assert batch.sample.tolist() == [0, 0, 1, 1]
    assert batch.behaviour.tolist() == [-1, -2, -4, -8]
    np.testing.assert_allclose(batch.advantages, [0.1, 0.2, 0.4, 0.8])
    assert batch.weights.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert np.isnan(batch.proximal).all()
    assert (batch.prompts, batch.branches) == ((3,), ((2, 3),))
    assert (batch.tokens, batch.repeated_tokens) == (8, 11)
    assert tree_mask(batch.segments)[0, 0].astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0],
        [1, 1, 1, 0, 0, 1, 1, 1],
    ]


def test_shorter_trees_are_padded_on_the_right_and_see_no_padding():
    samples = [sample([5, 6], [1, 2], [1, 1]), sample([7], [3], [1])]
    batch = pack(grow_trees(samples, 100), Squares())
    assert batch.ids.tolist() == [[5, 6, 1, 2], [7, 3, 0, 0]]
    assert batch.segments.tolist() == [[0, 0, 1, 1], [0, 1, -1, -1]]
    assert batch.source.tolist() == [1, 2, 4]
    assert tree_mask(batch.segments)[1, 0].astype(int).tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        [1, 0, 1, 1],
    ]


def test_images_take_two_dimensional_positions_in_prompt_and_branch():
    wide, small = image(1, 2, 7), image(1, 1, 3)
    samples = [
        sample([5, IMAGE, IMAGE, 6], [1, IMAGE, 2], [1, 0, 1], [wide], [small]),
        sample([5, IMAGE, IMAGE, 6], [1, IMAGE, IMAGE, 2], [1, 0, 0, 1], [wide], [wide.copy()]),
    ]
    (tree,) = grow_trees(samples, 100)
    batch = pack([tree], Squares())
    assert batch.ids.tolist() == [[5, 99, 99, 6, 1, 99, 2, 1, 99, 99, 2]]
    assert batch.positions[0].tolist() == [[0, 1, 1, 3, 4, 5, 6, 4, 5, 5, 7]]
    assert batch.positions[2].tolist() == [[0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7]]
    assert batch.image_order == (0, 1, 0)
    assert [picture[0, 0, 0] for picture in batch.images] == [7, 3]


def test_a_temporal_patch_takes_the_place_of_an_image_and_pairs_are_known_by_both_frames():
    class Films(Squares):
        visual_ids = (IMAGE, 98)

        def rope_positions(self, ids, grids, start=0):
            return rope_positions(ids, self.visual_ids, grids, 1, start)

    small = image(1, 1, 7)
    one, two = (np.stack([image(1, 2, 7), image(1, 2, value)]) for value in (7, 8))
    samples = [
        sample([5, 98, 98, 6], [1, 98, 98, 2], [1, 0, 0, 1], [one], [two]),
        sample([5, 98, 98, 6], [1, 98, 98, IMAGE, 2], [1, 0, 0, 0, 1], [one], [one, small]),
        sample([5, 98, 98, 6], [1], [1], [two]),
    ]
    tree, other = grow_trees(samples, 100)
    assert (len(tree.samples), len(other.samples)) == (2, 1)
    batch = pack([tree], Films())
    assert batch.positions[2].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 8]]
    assert [picture.shape for picture in batch.images] == [(2, 1, 2, 3), (2, 1, 2, 3), (1, 1, 3)]
    assert batch.image_order == (0, 1, 0, 2)
    assert batch.slice(0, 13, Films.visual_ids).image_tokens.tolist() == []
    assert batch.slice(11, 13, Films.visual_ids).image_tokens.tolist() == [6]


def test_padding_is_never_a_token_that_features_stand_for():
    class Low(Squares):
        visual_ids = (0, 1)

    assert padding_id(Squares()) == 0 and padding_id(Low()) == 2
    samples = [sample([5, 6], [7, 8], [1, 1]), sample([7], [3], [1])]
    assert pack(grow_trees(samples, 100), Low()).ids[1].tolist() == [7, 3, 2, 2]
    assert idle(Low(), 3).ids.tolist() == [[2, 2, 2]]


def test_tokens_and_images_after_the_last_trained_token_are_left_out():
    after = sample([5], [1, 2, IMAGE, 8], [1, 0, 0, 0], [], [image(1, 1, 3)])
    batch = pack(grow_trees([after], 100), Squares())
    assert batch.ids.tolist() == [[5, 1]]
    assert batch.images == ()


def test_images_that_do_not_fill_their_tokens_are_an_error():
    with pytest.raises(ValueError, match="image"):
        pack(grow_trees([sample([5], [IMAGE, IMAGE, 1], [0, 0, 1])], 100), Squares())
    with pytest.raises(ValueError, match="image"):
        pack(grow_trees([sample([5, IMAGE], [1], [1], [image(1, 2, 0)])], 100), Squares())


def test_prompts_with_other_tokens_or_other_pixels_are_other_trees():
    samples = [
        sample([5, IMAGE], [1], [1], [image(1, 1, 0)]),
        sample([5, IMAGE], [2], [1], [image(1, 1, 1)]),
        sample([5, IMAGE], [3], [1], [image(1, 1, 0)]),
        sample([6, IMAGE], [4], [1], [image(1, 1, 0)]),
        sample([5, IMAGE], [5], [0], [image(1, 1, 0)]),
    ]
    assert [tree.index for tree in grow_trees(samples, 100)] == [(0, 2), (1,), (3,)]


def test_a_tree_over_the_limit_is_cut_between_branches():
    samples = [sample([5, 6, 7], [1, 2], [1, 1]) for _ in range(5)]
    assert [tree.index for tree in grow_trees(samples, 7)] == [(0, 1), (2, 3), (4,)]
    assert [tree.index for tree in grow_trees(samples, 1)] == [(0,), (1,), (2,), (3,), (4,)]


def test_micro_batches_keep_the_budget_and_part_plain_sequences_from_trees():
    def group(prompt, branches):
        return [sample([prompt] * prompt, [1], [1]) for _ in range(branches)]

    again = sample([9, 9, 9], [1], [1])
    trees = grow_trees([*group(8, 2), *group(5, 1), *group(3, 1), again, *group(4, 3)], 99)
    batches = micro_batches(trees, 10)
    shapes = [[(tree.prompt, len(tree.samples)) for tree in batch] for batch in batches]
    assert shapes == [[(8, 2)], [(4, 3)], [(5, 1)], [(3, 1), (3, 1)]]


def test_a_micro_batch_ends_where_too_much_of_it_would_be_padding():
    def shapes(*prompts):
        trees = [grow_trees([sample([p] * p, [1], [1])], 999)[0] for p in prompts]
        return [[tree.prompt for tree in batch] for batch in micro_batches(trees, 9999)]

    assert MOST_PADDING == 0.08
    # rows of 25 and 21 tokens: 4 of 50 are padding, just the bound; with 20 tokens 5 are
    assert shapes(24, 20) == [[24, 20]]
    assert shapes(24, 19) == [[24], [19]]
    # 4 of 75, then 23 of 100
    assert shapes(24, 24, 20, 5) == [[24, 24, 20], [5]]


@pytest.mark.parametrize("field", ["loss_mask", "logprobs", "roles"])
def test_columns_of_another_length_are_refused(field):
    good = sample([5], [1, 2], [1, 1]).trajectory
    columns = {**good.__dict__, field: getattr(good, field)[:1]}
    with pytest.raises(ValueError, match=field):
        Sample(Trajectory(**columns), np.zeros(2, dtype=np.float32))


def test_advantages_and_prompt_are_checked():
    good = sample([5], [1, 2], [1, 1]).trajectory
    with pytest.raises(ValueError, match="advantages"):
        Sample(good, np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError, match="prompt"):
        sample([], [1], [1])
