"""Memory settings change what is saved for the backward pass, and not what is computed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from deepemd import FCN, DeepEMD, Grid, Sampling, conv4, resnet12
from deepemd.errors import InputError
from deepemd.nodes import Memory, encode

WAY = 3
ENCODERS = {
    "conv4": lambda: conv4(8, pools=3),
    "resnet12": lambda: resnet12((4, 8, 8, 16)),
    "resnet12, folded": lambda: resnet12((4, 8, 8, 16), space_to_depth=2),
    "own": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8, momentum=None), nn.Dropout(0.3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2)
    ),
}
REGIONS = [FCN(), Grid((2, 1)), Sampling(3)]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(encoder: str, regions, *, dtype: torch.dtype = torch.float32) -> DeepEMD:
    """A model whose running statistics are not the initial ones."""
    torch.manual_seed(0)
    model = DeepEMD(ENCODERS[encoder](), regions, image_size=48, resize=48).to(dtype).train()
    with torch.no_grad():
        model.embed(images(8))
    return model


def images(count: int = 12) -> Tensor:
    return torch.randint(0, 256, (count, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def after_a_step(model: DeepEMD, memory: Memory, *, bf16: bool = False) -> DeepEMD:
    """Return a copy of the model, with the gradients of an episode."""
    model = copy.deepcopy(model)
    torch.manual_seed(2)  # of the dropout
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        nodes = model.embed(images(), memory=memory)
        logits = model.match(nodes[:WAY], nodes[WAY:], WAY, query_chunk=memory.query_chunk)
    nn.functional.cross_entropy(logits, torch.arange(len(logits)) % WAY).backward()
    return model


def assert_same_gradients(one: DeepEMD, other: DeepEMD, tolerance: float) -> None:
    """Compare gradients, relative to the largest of the model."""
    scale = max(p.grad.abs().max() for p in one.parameters())
    assert scale > 0
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (p.grad - q.grad).abs().max() <= tolerance * scale, name


def assert_same_buffers(one: DeepEMD, other: DeepEMD) -> None:
    for (name, p), q in zip(one.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("regions", REGIONS, ids=["fcn", "grid", "sampling"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_checkpointed_training_is_plain_training(encoder, regions, bf16):
    model = build(encoder, regions)
    plain = after_a_step(model, Memory(), bf16=bf16)
    checkpointed = after_a_step(model, Memory(checkpoint=True), bf16=bf16)
    assert_same_gradients(plain, checkpointed, 1e-5)
    assert_same_buffers(plain, checkpointed)
    counts = [t for name, t in checkpointed.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 2 for count in counts)
    assert all(part.training for part in checkpointed.modules())
    assert list(checkpointed.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("regions", REGIONS, ids=["fcn", "grid", "sampling"])
@pytest.mark.parametrize("encoder", ["conv4", "resnet12"])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_chunks_are_all_at_once_where_batch_norm_is_frozen(encoder, regions, chunk):
    model = build(encoder, regions, dtype=torch.float64)  # an encoder rounds otherwise in batches of another size
    frozen = after_a_step(model, Memory(freeze_batch_norm=True))
    chunked = after_a_step(model, Memory(chunk=chunk, freeze_batch_norm=True))
    assert_same_gradients(frozen, chunked, 1e-5)
    assert_same_buffers(frozen, chunked)
    assert_same_buffers(model, chunked)  # the statistics stay
    assert all(part.training for part in chunked.modules())


def test_frozen_batch_norm_is_that_of_evaluation():
    model = build("resnet12", FCN())
    squares = torch.rand(4, 3, 48, 48)
    found = encode(model.backbone, squares, Memory(freeze_batch_norm=True))
    assert torch.equal(found, copy.deepcopy(model.backbone).eval()(squares))
    assert not torch.allclose(found, encode(model.backbone, squares, Memory()))


def test_gradients_of_chunks_add_up_in_float32():
    """In bfloat16 a sum of 64 gradients would be off by a hundredth, because each is a small part of the sum."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 1, bias=False)
    image = torch.ones(64, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        encode(layer, image, Memory(chunk=1, freeze_batch_norm=True)).float().mul(1.01).sum().backward()
    assert layer.weight.grad.numpy() == pytest.approx(64 * 64 * 1.01, rel=4e-3)


@pytest.mark.parametrize("episodes", [(), (2,)])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_matching_queries_in_chunks_is_matching_them(episodes, chunk):
    generator = torch.Generator().manual_seed(0)
    query, support = (torch.randn(*episodes, n, 6, 16, generator=generator) for n in (10, WAY))
    model = DeepEMD(conv4(16), FCN())
    found = []
    for query_chunk in (None, chunk):
        q, s = (t.clone().requires_grad_() for t in (query, support))
        logits = model.match(s, q, WAY, query_chunk=query_chunk)
        logits.square().sum().backward()
        found.append((logits.detach(), q.grad, s.grad))
    for plain, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-4, atol=1e-5)


def saved_bytes(work) -> tuple[int, Tensor]:
    """Return the bytes that autograd saves of some work, and its result."""
    sizes = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    return sum(sizes.values()), result


def test_what_goes_in_is_all_that_is_saved():
    """Only the input of each block, or the squares, is saved."""
    encoder = resnet12((4, 8, 8, 16)).train()
    squares = torch.rand(12, 3, 48, 48)
    plain, _ = saved_bytes(lambda: encode(encoder, squares, Memory()))
    assert plain > 12 * 7 * 4 * 48 * 48 * 4  # the first block's seven maps
    inputs = 12 * 4 * (3 * 48 * 48 + 4 * 24 * 24 + 8 * 12 * 12 + 8 * 6 * 6)
    assert saved_bytes(lambda: encode(encoder, squares, Memory(checkpoint=True)))[0] == inputs < plain / 10
    assert saved_bytes(lambda: encode(encoder, squares, Memory(chunk=3, freeze_batch_norm=True)))[0] == squares.nbytes


def test_queries_in_chunks_keep_nothing_but_nodes():
    query, support = (torch.randn(n, 6, 16, requires_grad=True) for n in (50, WAY))
    model = DeepEMD(conv4(16), FCN())
    plain, _ = saved_bytes(lambda: model.match(support, query, WAY))
    assert plain > 5 * query.nbytes
    assert saved_bytes(lambda: model.match(support, query, WAY, query_chunk=5))[0] == query.nbytes + support.nbytes


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"chunk": 64}, "memory.chunk is 64, but batch norm would then take its statistics from each chunk"),
        ({"chunk": 64, "freeze_batch_norm": True, "checkpoint": True}, "leave memory.checkpoint out"),
        ({"chunk": 0, "freeze_batch_norm": True}, "memory.chunk is 0: it must be at least 1"),
        ({"query_chunk": -1}, "memory.query_chunk is -1"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(settings, says):
    with pytest.raises(InputError, match=says):
        Memory(**settings)
