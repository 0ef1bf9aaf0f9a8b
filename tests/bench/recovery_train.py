"""A training script as people write them for torchrun: DDP, gloo, `torch.save`; and it says when it is where.

    torchrun ... recovery_train.py FOLDER GROUP_TIMEOUT_S CHECKPOINT_EVERY

As large as `torch.train` is unless told otherwise. Each rank appends lines to FOLDER/rank-R.jsonl: begun (nothing is
imported yet), imported, running (it is in its world), restored, step, error; with wall clock ns. It trains until it
is stopped. Under ft_launcher (FT_HEARTBEATS=1) it beats every step. Torch alone is imported, nothing of the harness.
"""

import json
import os
import socket
import sys
import time

BEGUN_NS = time.time_ns()
LAYERS, WIDTH, HEADS, SEQUENCE, BATCH, VOCABULARY = 2, 64, 4, 32, 8, 128
DROPOUT, LEARNING_RATE = 0.1, 0.001
START_TIMEOUT_S = 120


def _say(log, what, wall_ns=0, **more):  # type: ignore[no-untyped-def]
    line = {"what": what, "wall_ns": wall_ns or time.time_ns(), "pid": os.getpid(), **more}
    os.write(log, json.dumps(line).encode() + b"\n")


def _model():  # type: ignore[no-untyped-def]
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(SEQUENCE, WIDTH)
            block = nn.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, DROPOUT, "gelu", batch_first=True, norm_first=True
            )
            self.blocks = nn.TransformerEncoder(block, LAYERS, enable_nested_tensor=False)
            self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False))

        def forward(self, tokens, mask):  # type: ignore[no-untyped-def]
            return self.head(self.blocks(self.tokens(tokens) + self.positions.weight, mask=mask))

    return Model()


def _train(folder, group_timeout_s, every, log):  # type: ignore[no-untyped-def]
    from datetime import timedelta

    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    _say(log, "imported")
    torch.set_num_threads(1)
    _wait_for_store()
    dist.init_process_group("gloo", timeout=timedelta(seconds=START_TIMEOUT_S))
    rank = dist.get_rank()
    # Tuned: only steps are under the short time-out, not the start, in which ranks may be seconds apart.
    group = dist.new_group(timeout=timedelta(seconds=group_timeout_s))
    torch.manual_seed(1)
    module = _model()
    model = DistributedDataParallel(module, process_group=group)
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)
    mask = nn.Transformer.generate_square_subsequent_mask(SEQUENCE)
    dist.barrier()
    _say(log, "running", restart=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))
    step, path = 0, os.path.join(folder, "checkpoint.pt")
    if os.path.exists(path):
        saved = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
        _say(log, "restored", step=step)
    beat = _heartbeats()
    while True:
        source = torch.Generator().manual_seed(1000 * step + rank)
        tokens = torch.randint(VOCABULARY, (BATCH, SEQUENCE + 1), generator=source)
        logits = model(tokens[:, :-1], mask)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        _say(log, "step", step=step)
        beat()
        if step % every == 0 and rank == 0:
            state = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, path + ".new")
            os.replace(path + ".new", path)


def _wait_for_store():  # type: ignore[no-untyped-def]
    """Tuned: who finds nobody listening there waits a quarter of a second to a second in torch's own back-off."""
    end = time.monotonic() + START_TIMEOUT_S
    while os.environ["RANK"] != "0" and time.monotonic() < end:
        try:
            socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), 1).close()
            return
        except OSError:
            time.sleep(0.002)


def _heartbeats():  # type: ignore[no-untyped-def]
    if not os.environ.get("FT_HEARTBEATS"):
        return lambda: None
    from nvidia_resiliency_ext.fault_tolerance import RankMonitorClient

    client = RankMonitorClient()
    client.init_workload_monitoring()
    return client.send_heartbeat


def main(folder: str, group_timeout_s: float, every: int) -> None:
    """Train until somebody ends it."""
    path = os.path.join(folder, f"rank-{os.environ['RANK']}.jsonl")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    _say(log, "begun", BEGUN_NS)
    try:
        _train(folder, group_timeout_s, every, log)
    except BaseException as error:
        _say(log, "error", error=f"{type(error).__name__}: {error}"[:300])
        sys.stderr.write(f"{type(error).__name__}: {error}\n"[:300])
        sys.stderr.flush()
        os._exit(1)  # tuned: as fast as a failed script can leave


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
