"""What Deep Speech says of a clip depends on that clip alone, and its loss is CTC's over the clip's own frames."""

import pytest
import torch
import torch.nn.functional as F

from bigmodel.interfaces import Batch
from bigmodel.models.deepspeech import DeepSpeech
from bigmodel.padding import pad
from bigmodel.tasks.ctc import CTC


@pytest.fixture
def made():
    torch.manual_seed(0)
    model = DeepSpeech([20, 6], 4, channels=8, kernel=3, strides=(2, 1), hidden=5, layers=2).eval()
    return model, [torch.randn(length, 6) for length in (20, 13, 8)]


def test_filling_and_company_change_nothing(made):
    model, clips = made
    together = model(pad(clips))
    for clip, outputs in zip(clips, together, strict=True):
        alone = model(clip[None])[0]
        torch.testing.assert_close(outputs[: len(alone)], alone)
        assert (outputs[len(alone) :].softmax(1)[:, 0] == 1).all()


def test_the_loss_is_that_of_each_clips_own_frames(made):
    model, clips = made
    texts = [torch.tensor([1, 2, 2]), torch.tensor([3]), torch.tensor([1, 3])]
    loss, _ = CTC("abc").loss(model, Batch(pad(clips), pad(texts)))
    losses = []
    for clip, text in zip(clips, texts, strict=True):
        log_probs = model(clip[None]).log_softmax(2).transpose(0, 1)
        losses.append(F.ctc_loss(log_probs, text[None], torch.tensor([len(log_probs)]), torch.tensor([len(text)])))
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_both_ways_hears_the_future_and_one_way_does_not(made):
    _, (clip, *_) = made
    changed = clip.clone()
    changed[-1] += 9
    for bidirectional in (True, False):
        torch.manual_seed(0)
        model = DeepSpeech([20, 6], 4, channels=8, kernel=3, strides=(1,), hidden=5, bidirectional=bidirectional).eval()
        same = torch.isclose(model(clip[None])[0], model(changed[None])[0]).all(1)
        assert same[:10].all() != bidirectional
