#!/usr/bin/python3
"""The peer for training speed: the shape of `dilmodeli train` at its benchmark, in PyTorch on the CPU.

A qwen3moe model of 22.2 M parameters (5.7 M active): 6 layers, dim 256, 4 heads of 64 over 2 key and value heads,
per-head RMSNorm of queries and keys, NeoX rotary embedding, 32 experts of 128 with the 4 best renormalised, SwiGLU,
vocabulary 8192 with tied output, context 256, batch 16. One step is forward, backward, clipping and AdamW over the whole
batch; ids are random, as they do not change the work but for the balance of the experts, which is even at the start.

Made to be as fast as PyTorch 1.13 lets it: tokens are sorted by expert once a layer and gathered by permutations whose
gradients are permutations too (index_add is slow here), expert products read and write slices of stacked tensors in
place, the optimiser is the multi-tensor one, gradients are not zeroed, and freed memory stays with the process instead
of going back to the system page by page.

What weighs most is which OpenBLAS is loaded. PyTorch's own loops run in OpenMP threads that spin for a while after each
loop. Debian's default OpenBLAS (libopenblas0-pthread) brings threads of its own, which then have to share the cores with
the spinning ones; the OpenMP flavour (libopenblas0-openmp) uses the same threads and is two to three times faster here.
--blas, --moe, --micro-batch and --system-malloc choose the variants that were compared; the defaults are the fastest.

Debian's own PyTorch is meant (python3-torch): run it with /usr/bin/python3. Prints one JSON object.
"""
import argparse
import glob
import json
import os
import statistics
import sys
import time

# glibc reads these at start: without them every big tensor is mapped, faulted in and unmapped at each use.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}

LAYERS, DIM, HEADS, KV_HEADS, HEAD_DIM = 6, 256, 4, 2, 64
EXPERTS, TOP_K, EXPERT_DIM, VOCAB, CONTEXT, BATCH = 32, 4, 128, 8192, 256, 16
EPS, ROPE_BASE, AUX, CLIP = 1e-6, 10000.0, 0.01, 1.0


def arguments():
    parser = argparse.ArgumentParser(description="Training speed of PyTorch on the shape of the benchmark")
    parser.add_argument("--steps", type=int, default=6, help="timed steps; the median counts")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=BATCH, help="sequences per pass; gradients add up")
    parser.add_argument("--moe", choices=["grouped", "unbind", "bmm"], default="grouped",
                        help="grouped: one product per expert into slices; unbind: the same by autograd alone; "
                             "bmm: padded to the fullest expert")
    parser.add_argument("--blas", choices=["openmp", "pthread", "system"], default="openmp",
                        help="which of Debian's OpenBLAS flavours to load; system: what the alternatives link names")
    parser.add_argument("--system-malloc", action="store_true", help="leave glibc's malloc as it is")
    return parser.parse_args()


def environment():
    """What must be set before the process starts."""
    wanted = {"OPENBLAS_NUM_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads)}
    if not args.system_malloc:
        wanted.update(MALLOC)
    if args.blas != "system":
        folders = glob.glob(f"/usr/lib/*/openblas-{args.blas}")
        if not folders:
            sys.exit(f"no OpenBLAS with {args.blas} threads here: apt-get install libopenblas0-{args.blas}")
        wanted["LD_LIBRARY_PATH"] = folders[0]
    return wanted


args = arguments()
if any(os.environ.get(name) != value for name, value in environment().items()):
    os.execve(sys.executable, [sys.executable] + sys.argv, {**os.environ, **environment()})

import torch  # noqa: E402, after the environment
import torch.nn.functional as F  # noqa: E402


class Gather(torch.autograd.Function):
    """Rows [n, d] to [n * k, d], sorted by expert."""

    @staticmethod
    def forward(ctx, x, order, inverse):
        ctx.save_for_backward(inverse)
        return x.index_select(0, torch.div(order, TOP_K, rounding_mode="floor"))

    @staticmethod
    def backward(ctx, dy):
        (inverse,) = ctx.saved_tensors
        return dy.index_select(0, inverse).view(-1, TOP_K, dy.shape[1]).sum(1), None, None


class Unsort(torch.autograd.Function):
    """Back into the order of the tokens."""

    @staticmethod
    def forward(ctx, y, order, inverse):
        ctx.save_for_backward(order)
        return y.index_select(0, inverse)

    @staticmethod
    def backward(ctx, dy):
        (order,) = ctx.saved_tensors
        return dy.index_select(0, order), None, None


class GroupedLinear(torch.autograd.Function):
    """y of expert e = x of expert e times w[e]^T; rows sorted by expert, w [experts, out, in]."""

    @staticmethod
    def forward(ctx, x, w, ends):
        ctx.save_for_backward(x, w)
        ctx.ends = ends
        y = x.new_empty(x.shape[0], w.shape[1])
        for e, (start, end) in enumerate(ends):
            torch.mm(x[start:end], w[e].t(), out=y[start:end])
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        dx, dw = torch.empty_like(x), torch.empty_like(w)
        for e, (start, end) in enumerate(ctx.ends):
            torch.mm(dy[start:end], w[e], out=dx[start:end])
            torch.mm(dy[start:end].t(), x[start:end], out=dw[e])
        return dx, dw, None


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def experts_grouped(x, gate_up, down, ends):
    return GroupedLinear.apply(swiglu(GroupedLinear.apply(x, gate_up, ends)), down, ends)


def experts_unbind(x, gate_up, down, ends):
    parts = x.split([end - start for start, end in ends])
    return torch.cat([F.linear(swiglu(F.linear(part, g)), d) for part, g, d in zip(parts, gate_up.unbind(0), down.unbind(0))])


def experts_bmm(x, gate_up, down, ends):
    longest = max(end - start for start, end in ends)
    rows = torch.cat([torch.arange(end - start) + e * longest for e, (start, end) in enumerate(ends)])
    padded = x.new_zeros(EXPERTS * longest, DIM).index_copy(0, rows, x).view(EXPERTS, longest, DIM)
    y = torch.bmm(swiglu(torch.bmm(padded, gate_up.transpose(1, 2))), down.transpose(1, 2))
    return y.view(-1, DIM).index_select(0, rows)


EXPERT_PRODUCTS = {"grouped": experts_grouped, "unbind": experts_unbind, "bmm": experts_bmm}[args.moe]


def rmsnorm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rotate(x, cosine, sine):
    half = HEAD_DIM // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()

        def matrix(*shape):
            return torch.nn.Parameter(torch.randn(*shape) * 0.02)

        def ones(n):
            return torch.nn.Parameter(torch.ones(n))

        self.attention_norm, self.moe_norm = ones(DIM), ones(DIM)
        self.q_norm, self.k_norm = ones(HEAD_DIM), ones(HEAD_DIM)
        self.qkv = matrix((HEADS + 2 * KV_HEADS) * HEAD_DIM, DIM)
        self.out = matrix(DIM, HEADS * HEAD_DIM)
        self.router = matrix(EXPERTS, DIM)
        self.gate_up = matrix(EXPERTS, 2 * EXPERT_DIM, DIM)
        self.down = matrix(EXPERTS, DIM, EXPERT_DIM)

    def attention(self, x, cosine, sine, mask):
        b, t, _ = x.shape
        qkv = F.linear(x, self.qkv).view(b, t, -1, HEAD_DIM).transpose(1, 2)
        q, k, v = qkv.split([HEADS, KV_HEADS, KV_HEADS], 1)
        q = rotate(rmsnorm(q, self.q_norm), cosine, sine)
        k = rotate(rmsnorm(k, self.k_norm), cosine, sine)
        # The query heads of one key head lie one below the other: no head of k or v is repeated.
        group = HEADS // KV_HEADS
        q = q.reshape(b * KV_HEADS, group * t, HEAD_DIM)
        k = k.reshape(b * KV_HEADS, t, HEAD_DIM)
        v = v.reshape(b * KV_HEADS, t, HEAD_DIM)
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=HEAD_DIM**-0.5)
        y = torch.bmm(scores.softmax(-1), v)
        return F.linear(y.view(b, HEADS, t, HEAD_DIM).transpose(1, 2).reshape(b, t, -1), self.out)

    def moe(self, x):
        p = F.linear(x, self.router).softmax(-1)
        weight, chosen = p.topk(TOP_K, -1)
        weight = weight / weight.sum(-1, keepdim=True)
        order = chosen.view(-1).argsort()
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel()))
        counts = torch.bincount(chosen.view(-1), minlength=EXPERTS)
        bounds = [0] + counts.cumsum(0).tolist()
        y = EXPERT_PRODUCTS(Gather.apply(x, order, inverse), self.gate_up, self.down, list(zip(bounds, bounds[1:])))
        y = Unsort.apply(y, order, inverse).view(-1, TOP_K, DIM)
        aux = EXPERTS * (counts / (x.shape[0] * TOP_K) * p.mean(0)).sum()
        return torch.bmm(weight.unsqueeze(1), y).squeeze(1), aux

    def forward(self, x, cosine, sine, mask):
        x = x + self.attention(rmsnorm(x, self.attention_norm), cosine, sine, mask)
        y, aux = self.moe(rmsnorm(x, self.moe_norm).view(-1, DIM))
        return x + y.view_as(x), aux


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Parameter(torch.randn(VOCAB, DIM) * 0.02)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = torch.nn.Parameter(torch.ones(DIM))
        half = HEAD_DIM // 2
        angle = torch.outer(torch.arange(CONTEXT).float(), ROPE_BASE ** (-torch.arange(half).float() / half))
        self.cosine, self.sine = angle.cos(), angle.sin()
        causal = torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1)
        self.mask = causal.repeat(HEADS // KV_HEADS, 1)

    def forward(self, ids):
        x = F.embedding(ids[:, :-1], self.embedding)
        aux = 0.0
        for layer in self.layers:
            x, layer_aux = layer(x, self.cosine, self.sine, self.mask)
            aux = aux + layer_aux / LAYERS
        logits = F.linear(rmsnorm(x, self.norm), self.embedding)
        return F.cross_entropy(logits.view(-1, VOCAB), ids[:, 1:].reshape(-1)) + AUX * aux


def blas_library():
    with open("/proc/self/maps") as maps:
        files = {line.split()[-1] for line in maps if "blas" in line}
    return sorted(files)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, foreach=True)
    parts = BATCH // args.micro_batch
    seconds = []
    for _ in range(args.warmup + args.steps):
        ids = torch.randint(VOCAB, (BATCH, CONTEXT + 1))
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in ids.split(args.micro_batch):
            loss = model(part) / parts
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    rates = [BATCH * CONTEXT / s for s in seconds[args.warmup:]]
    print(json.dumps({
        "tokens_per_s": statistics.median(rates),
        "rates": rates,
        "loss": float(total),
        "params": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "moe": args.moe,
        "micro_batch": args.micro_batch,
        "torch": torch.__version__,
        "blas": blas_library(),
    }))


main()
