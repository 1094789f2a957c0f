"""ShardedStrategy in one process, which divides nothing, and what it refuses (two: test_dist_elastic.py)."""

import torch

SHARDED = """
_base_ = ['tiny.py', 'atss_ext::_base_/fsdp.py']
train_cfg = dict(max_epochs={epochs}, val_interval=1)
"""


def train(tiny, in_process, name: str, content: str, *more: object) -> tuple[int, str]:
    config = tiny.write(f'{name}.py', content)
    return in_process('train.py', config, '--work-dir', tiny.root / name, *more)


def test_one_process_trains_goes_on_and_is_tested(tiny, in_process):
    """With the weights of a run without the strategy; scales of one number are vectors in between."""
    plain = "_base_ = ['tiny.py']\ntrain_cfg = dict(max_epochs=2, val_interval=9)"
    assert train(tiny, in_process, 'plain', plain)[0] == 0
    assert train(tiny, in_process, 'sharded', SHARDED.format(epochs=1))[0] == 0
    assert train(tiny, in_process, 'sharded', SHARDED.format(epochs=2), '--resume')[0] == 0
    weights = [
        torch.load(tiny.root / name / 'epoch_2.pth', weights_only=False)['state_dict']
        for name in ('plain', 'sharded')
    ]
    assert list(weights[0]) == list(weights[1])
    assert any(value.dim() == 0 for value in weights[0].values())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    code, said = in_process('test.py', tiny.root / 'sharded.py', tiny.root / 'sharded/epoch_2.pth')
    assert code == 0, said
    code, said = in_process('test.py', tiny.root / 'plain.py', tiny.root / 'sharded/epoch_2.pth')
    assert code == 0, said


def test_what_it_refuses_is_one_sentence(tiny, in_process):
    code, said = train(
        tiny, in_process, 'sharded', SHARDED.format(epochs=2), '--cfg-options',
        "strategy.shard=['backbone','nek']",
    )  # fmt: skip
    assert code == 2
    assert said.splitlines()[-1].startswith(
        "error: ShardedStrategy: ATSS has no module 'nek'; name in shard those it has, such as "
    )
    plain = "_base_ = ['tiny.py']\ntrain_cfg = dict(max_epochs=1, val_interval=9)"
    assert train(tiny, in_process, 'plain', plain)[0] == 0
    more = ('--resume', tiny.root / 'plain/epoch_1.pth')
    code, said = train(tiny, in_process, 'sharded', SHARDED.format(epochs=2), *more)
    assert code == 2
    assert said.splitlines()[-1] == (
        'error: the checkpoint was written without ShardedStrategy, and its optimizer cannot go on with it; '
        'start from its weights: load_from instead of --resume'
    )
