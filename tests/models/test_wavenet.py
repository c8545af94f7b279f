"""WaveNet hears what came before and nothing else, and generates with kept states what it says without them."""

import pytest
import torch

from bigmodel.datasets.audio.mu_law import SILENCE, mu_law_decode, mu_law_encode
from bigmodel.datasets.audio.spoken_digit_waves import RandomWaveCrop
from bigmodel.interfaces import Batch
from bigmodel.models.wavenet import WaveNet


@pytest.fixture
def model():
    torch.manual_seed(0)
    return WaveNet(3, 256, channels=4, skip_channels=6, dilations=(1, 2, 4)).double()


def test_a_sample_depends_on_the_receptive_field_before_it_and_on_the_class(model):
    inputs = torch.randint(256, (1, 40), generator=torch.Generator().manual_seed(0))
    inputs[0, 0] = 0
    plain = model(inputs)
    assert plain.shape == (1, 40, 256)
    changed = inputs.clone()
    changed[0, 1 + 20] ^= 128
    differs = (model(changed) != plain).any(2)[0].nonzero()[:, 0].tolist()
    assert differs == list(range(21, 21 + model.receptive_field))
    changed = inputs.clone()
    changed[0, 0] = 2
    assert (model(changed) != plain).any(2).all()


def test_with_kept_states_it_says_the_same(model):
    inputs = torch.randint(256, (2, 31), generator=torch.Generator().manual_seed(0))
    inputs[:, 0] = torch.tensor([2, 1])
    cache = model.cache(2)
    said = [model(inputs[:, :4], cache), *(model(one[:, None], cache) for one in inputs[:, 4:].unbind(1))]
    torch.testing.assert_close(torch.cat(said, dim=1), model(inputs))


def test_mu_law_is_finest_near_silence_and_undone_by_its_inverse():
    codes = torch.arange(256)
    assert mu_law_encode(mu_law_decode(codes)).tolist() == codes.tolist()
    assert mu_law_encode(torch.zeros(1)).item() == SILENCE
    steps = mu_law_decode(codes).diff()
    assert steps.min() == steps[127] < 1e-3 < steps.max() == steps[0]
    assert mu_law_encode(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_windows_lie_within_the_clip_and_predict_only_what_was_heard_before():
    codes = torch.arange(40, dtype=torch.int16).repeat(6, 1)
    codes[3:, 5:] = -1
    batch = Batch(torch.cat([torch.full((6, 1), 9, dtype=torch.int16), codes[:, :-1]], dim=1), codes)
    windows = RandomWaveCrop(length=12, context=3)
    starts = set()
    for step in range(20):
        (inputs, targets, _), again = windows(batch, 0, step), windows(batch, 0, step)
        assert torch.equal(inputs, again.inputs)
        assert (inputs[:, 0] == 9).all()
        assert inputs[3:, 1:].tolist() == [[0, 1, 2, 3, 4] + [-1] * 6] * 3
        for heard, target in zip(inputs[:3, 1:].tolist(), targets[:3].tolist(), strict=True):
            row = list(range(heard[0], heard[0] + 12))
            assert heard == row[:-1]
            assert target == (row if row[0] == 0 else [-1] * 3 + row[3:])
            starts.add(row[0])
    assert len(starts) > 10


def test_a_new_head_knows_which_codes_are_neighbours(model):
    hidden = torch.zeros(2, 6, 1, dtype=torch.float64)
    hidden[0, [0, 2]], hidden[1, [1, 2]] = 100.0, 100.0  # bells around a half and minus a half, in both ways
    assert model.head(hidden)[..., 0].argmax(1).tolist() == pytest.approx([191, 64], abs=8)
