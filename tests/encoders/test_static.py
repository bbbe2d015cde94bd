"""The static encoder against its definition (docs/decide.md), against model2vec, and against itself."""

from __future__ import annotations

import doctest
import hashlib
import random
import subprocess
import sys
import threading

import numpy as np
import pytest

from ipr_engine import _C
from ipr_engine.encoders import static
from ipr_engine.encoders.base import Encoded
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import (
    BackendUnavailableError,
    InvalidInputError,
)
from tests.support import skips
from tests.support.memory import resident_bytes
from tests.support.places import ROOT
from tests.support.static_tables import TREE, VOCAB, tensors, write
from tests.support.wordpieces import ALPHABET, SCRIPTS, library, native, tokenizer_json

UNIT = 2.0**-24  # of float32 rounding
DIMS = [1, 15, 16, 17, 64, 65, 250, 256, 385, 600]
ISAS = ["scalar", "avx2", "avx512"]


def taken_apart(encoded: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return encoded.x, encoded.billed_tokens, encoded.truncated


def isas_here() -> list[str]:
    found = []
    for isa in ISAS:
        try:
            _C.StaticEncoder(np.zeros((1, 1), np.float32), isa=isa)
            found.append(isa)
        except BackendUnavailableError:
            pass
    return found


def some_prompts(count: int = 40, seed: int = 0) -> list[str]:
    random_ = random.Random(seed)
    alphabets = ["abcdef ", "aé ", ALPHABET + " " * 30, *SCRIPTS.values()]
    prompts = ["".join(random_.choices(random_.choice(alphabets), k=random_.randrange(300))) for _ in range(count)]
    return ["", "a", "\ue000", "ᚠᚢ", *prompts]


def cut(ids: list[int], starts: list[bool], unk: int, max_tokens: int) -> list[int]:
    """The kept ids, as section 7 says: whole words from both ends; a word that alone overfills a half is cut."""
    known = []
    pending = False
    for id, start in zip(ids, starts, strict=True):
        pending = pending or start
        if id != unk:
            known.append((id, pending))
            pending = False
    if len(known) <= max_tokens:
        return [id for id, _ in known]
    head_room, tail_room = max_tokens - max_tokens // 2, max_tokens // 2
    heads = [k for k in range(1, head_room + 1) if known[k][1]]
    tails = [k for k in range(len(known) - tail_room, len(known)) if known[k][1]]
    head = heads[-1] if heads else head_room
    tail = tails[0] if tails else len(known) - tail_room
    return [id for id, _ in known[:head] + known[tail:]]


def reference(made: dict[str, np.ndarray], ids: list[int], normalize: bool) -> tuple[np.ndarray, np.ndarray]:
    """x in float64, and a bound on what float32 in the written order may differ from it."""
    if not ids:
        return np.zeros(made["embeddings"].shape[1]), np.zeros(made["embeddings"].shape[1])
    rows = made["mapping"][ids] if "mapping" in made else ids
    weights = made["weights"][ids].astype(np.float32) if "weights" in made else np.ones(len(ids))
    terms = weights[:, None].astype(np.float64) * made["embeddings"][rows].astype(np.float64)
    x = terms.mean(axis=0)
    # len(ids) fused multiply-adds and one division, each off by at most UNIT relative to the sum of magnitudes.
    bound = (len(ids) + 2) * UNIT * np.abs(terms).mean(axis=0)
    norm = np.linalg.norm(x)
    if not normalize:
        return x, 1.01 * bound
    # The norm inherits the elements' error, and adds at most dim/16 + 4 additions, a root, an addition and a division.
    steps = len(x) / 16 + 8
    return x / norm, 1.01 * (bound / norm + np.abs(x) / norm * (np.linalg.norm(bound) / norm + steps * UNIT))


@pytest.mark.parametrize("normalize", [True, False], ids=["normalize", "mean"])
@pytest.mark.parametrize("weights", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize("mapping", [True, False], ids=["mapping", "no mapping"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_embedding_is_within_the_rounding_bound_of_float64(rng, tmp_path, dtype, mapping, weights, normalize):
    prompts = some_prompts()
    tokenizer = library(TREE)
    expected_ids = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
    for dim in DIMS:
        made = tensors(rng, dtype, dim, mapping, weights)
        encoder = StaticEncoder.from_folder(write(tmp_path, made, config={"normalize": normalize}), max_tokens=10_000)
        x, billed, truncated = taken_apart(encoder.encode(prompts))
        assert (x.dtype, x.shape, encoder.dim) == (np.float32, (len(prompts), dim), dim)
        assert billed.tolist() == [len(ids) for ids in expected_ids]
        assert not truncated.any()
        for row, ids in enumerate(expected_ids):
            exact, bound = reference(made, [id for id in ids if id != VOCAB["[UNK]"]], normalize)
            assert (np.abs(x[row] - exact) <= bound).all(), f"dim {dim}, {prompts[row]!r}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_unweighted_sums_are_float32_additions_in_token_order(rng, dtype, isa):
    if isa not in isas_here():
        pytest.skip(f"{skips.HARDWARE} {isa}")
    for dim in DIMS:
        table = tensors(rng, dtype, dim, False, False)["embeddings"]
        ids = rng.integers(0, len(table), 77).astype(np.uint32)
        x, _ = _C.StaticEncoder(table, normalize=False, isa=isa).encode_ids(ids, np.ones(77, bool))
        total = np.zeros(dim, np.float32)
        for id in ids:
            total += table[id].astype(np.float32)
        np.testing.assert_array_equal(x, total / np.float32(77))


@pytest.mark.parametrize("isa", ISAS)
def test_every_float16_and_int8_value_is_widened_exactly(isa):
    if isa not in isas_here():
        pytest.skip(f"{skips.HARDWARE} {isa}")
    for table in (np.arange(1 << 16, dtype=np.uint16).view(np.float16), np.arange(-128, 128).astype(np.int8)):
        encoder = _C.StaticEncoder(table[None], normalize=False, isa=isa)
        x, _ = encoder.encode_ids(np.zeros(1, np.uint32), np.ones(1, bool))
        np.testing.assert_array_equal(x, table.astype(np.float32))


@pytest.mark.parametrize("weights", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_instruction_sets_agree_bit_for_bit(rng, dtype, weights):
    for dim in DIMS:
        made = tensors(rng, dtype, dim, weights, weights)
        if dtype != "int8":
            made["embeddings"][:5] *= np.asarray(1e-7, dtype)  # subnormal float16
        if weights:
            made["weights"] = made["weights"].astype(np.float32)
        optional = {name: made.get(name) for name in ("mapping", "weights")}
        tokenizer = native(TREE)
        found = [
            _C.StaticEncoder(made["embeddings"], tokenizer=tokenizer, isa=isa, **optional).encode(some_prompts())[0]
            for isa in isas_here()
        ]
        for other in found[1:]:
            assert other.tobytes() == found[0].tobytes()


def test_auto_takes_the_widest_instruction_set_and_says_so(rng, tmp_path):
    encoder = StaticEncoder.from_folder(write(tmp_path, tensors(rng, "float16", 8, False, False)))
    assert encoder.isa == isas_here()[-1]
    assert f"isa='{encoder.isa}'" in repr(encoder)
    assert "tokenizer='wordpiece'" in repr(encoder)
    assert "float16" in repr(encoder)


def test_a_missing_or_unknown_instruction_set_is_an_error(rng, tmp_path):
    write(tmp_path, tensors(rng, "float16", 8, False, False))
    with pytest.raises(InvalidInputError, match="isa: expected auto, scalar, avx2 or avx512, got neon"):
        StaticEncoder.from_folder(tmp_path, isa="neon")
    with pytest.raises(InvalidInputError, match="isa: expected str, got int"):
        StaticEncoder.from_folder(tmp_path, isa=2)
    for isa in set(ISAS) - set(isas_here()):
        with pytest.raises(BackendUnavailableError, match="isa"):
            StaticEncoder.from_folder(tmp_path, isa=isa)


def test_row_of_a_batch_equals_that_row_alone(rng, tmp_path):
    encoder = StaticEncoder.from_folder(write(tmp_path, tensors(rng, "float16", 100, True, True)), max_tokens=50)
    prompts = some_prompts(80, seed=3)
    together = encoder.encode(prompts)
    for row, prompt in enumerate(prompts):
        alone = encoder.encode([prompt])
        for whole, part in zip(taken_apart(together), taken_apart(alone), strict=True):
            assert whole[row].tobytes() == part[0].tobytes()


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_shapes_follow_the_batch(rng, tmp_path, batch):
    encoder = StaticEncoder.from_folder(write(tmp_path, tensors(rng, "float32", 17, False, False)))
    for prompts in (["a"] * batch, ("a",) * batch, np.array(["a"] * batch, dtype=str)):
        x, billed, truncated = taken_apart(encoder.encode(prompts))
        assert (x.shape, billed.shape, truncated.shape) == ((batch, 17), (batch,), (batch,))
        assert (x.dtype, billed.dtype, truncated.dtype) == (np.float32, np.int64, np.bool_)


@pytest.mark.parametrize("prompt", ["", " \n", "\0", "ᚠᚢ", "ᚠ ᚢ " * 1000])
def test_no_known_token_gives_zeros(rng, tmp_path, prompt):
    encoder = StaticEncoder.from_folder(write(tmp_path, tensors(rng, "float32", 17, False, True)), max_tokens=5)
    x, billed, truncated = taken_apart(encoder.encode([prompt]))
    assert not x.any()
    assert billed[0] == encoder.count_tokens(prompt)
    assert not truncated[0]  # unknown tokens are dropped before the cut


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4, 7, 50, 51])
def test_a_long_prompt_keeps_whole_words_of_its_head_and_tail(rng, tmp_path, max_tokens):
    write(tmp_path, tensors(rng, "float32", 24, False, False))
    encoder = StaticEncoder.from_folder(tmp_path, max_tokens=max_tokens)
    whole = StaticEncoder.from_folder(tmp_path, max_tokens=1 << 40)
    for prompt in some_prompts(60, seed=max_tokens):
        ids, starts = encoder.tokenizer.encode(prompt)
        kept = cut(ids.tolist(), starts.tolist(), VOCAB["[UNK]"], max_tokens)
        expected, _ = whole.native.encode_ids(np.array(kept, np.uint32), np.ones(len(kept), bool))
        x, billed, truncated = taken_apart(encoder.encode([prompt]))
        assert x[0].tobytes() == expected.tobytes()
        assert billed[0] == len(ids)
        assert truncated[0] == ((ids != VOCAB["[UNK]"]).sum() > max_tokens)


def test_a_cut_never_splits_a_word_that_fits_its_half(tmp_path):
    vocab = {"[UNK]": 0, "a": 1, "##a": 2, "b": 3}
    table = np.eye(4, dtype=np.float32)
    encoder = StaticEncoder.from_folder(
        write(tmp_path, {"embeddings": table}, tree=tokenizer_json(vocab), config={}), max_tokens=8
    )
    # Words of 3 pieces: of 4 places at each end, one stays empty.
    assert encoder.encode(["aaa " * 5]).x[0].tolist() == np.float32([0, 2 / 6, 4 / 6, 0]).tolist()
    # One word of 30 pieces overfills both halves and is cut inside.
    assert encoder.encode(["a" * 30]).x[0].tolist() == [0, 1 / 8, 7 / 8, 0]


@pytest.mark.parametrize(("mapping", "weights"), [(False, False), (True, True)])
def test_the_library_tokenizer_gives_the_same_embeddings(rng, tmp_path, mapping, weights):
    write(tmp_path, tensors(rng, "float16", 40, mapping, weights))
    ours = StaticEncoder.from_folder(tmp_path, max_tokens=30)
    theirs = StaticEncoder.from_folder(tmp_path, max_tokens=30, tokenizer="tokenizers")
    assert "tokenizer='tokenizers'" in repr(theirs)
    assert ours.identity == theirs.identity
    for mine, yours in zip(
        taken_apart(ours.encode(some_prompts())), taken_apart(theirs.encode(some_prompts())), strict=True
    ):
        assert mine.tobytes() == yours.tobytes()


def test_identity_is_the_sha256_of_canonical_json(rng, tmp_path):
    write(tmp_path, tensors(rng, "int8", 8, False, False))
    digests = {
        role: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for role, name in (("table", "model.safetensors"), ("tokenizer", "tokenizer.json"), ("config", "config.json"))
    }
    text = (
        f'{{"files":{{"config":"{digests["config"]}","table":"{digests["table"]}",'
        f'"tokenizer":"{digests["tokenizer"]}"}},"kind":"static","max_tokens":99,"normalize":true,"pooling":"mean"}}'
    )
    encoder = StaticEncoder.from_folder(tmp_path, max_tokens=99)
    assert encoder.identity == hashlib.sha256(text.encode()).hexdigest()
    assert encoder.identity == StaticEncoder.from_folder(tmp_path, max_tokens=99, isa="scalar").identity


def test_loading_maps_the_table_instead_of_copying_it(tmp_path):
    rows, dim = len(VOCAB), 40_000
    table = np.zeros((rows, dim), np.float16)
    write(tmp_path, {"embeddings": table})
    size = table.nbytes
    del table
    before = resident_bytes()
    encoder = StaticEncoder.from_folder(tmp_path)
    encoder.encode(["a b c"])
    # Hashing reads the file through a small buffer; only the rows in use become resident.
    assert size > 80_000_000
    assert resident_bytes() - before < size // 8


def test_memory_of_a_huge_prompt_is_given_back(rng, tmp_path):
    folder = write(tmp_path, tensors(rng, "float16", 16, True, True))
    # In a process of its own: what malloc keeps depends on what was freed before.
    code = f"""
from ipr_engine.encoders.static import StaticEncoder
from tests.support.memory import resident_bytes
encoder = StaticEncoder.from_folder({str(folder)!r})
encoder.encode(["warm up"])
prompt = "a b " * 2_500_000
before = resident_bytes()
encoded = encoder.encode([prompt])
assert encoded.billed_tokens[0] == 5_000_000 and encoded.truncated[0]
print(resident_bytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8_000_000  # 5 million ids are 20 MB


def test_threads_share_an_encoder(rng, tmp_path):
    encoder = StaticEncoder.from_folder(write(tmp_path, tensors(rng, "float16", 64, True, True)), max_tokens=100)
    prompts = [prompt * 30 for prompt in some_prompts(60, seed=9)]  # some long enough to give up the GIL
    expected = encoder.encode(prompts).x
    wrong: list[int] = []

    def work(shift: int) -> None:
        for k in range(300):
            row = (k * 7 + shift) % len(prompts)
            if encoder.encode([prompts[row]]).x[0].tobytes() != expected[row].tobytes():
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_threads_run_while_a_long_prompt_is_encoded(rng, tmp_path):
    encoder = StaticEncoder.from_folder(write(tmp_path, tensors(rng, "float16", 64, False, False)))
    prompt = "a" * 60_000_000

    def ticks() -> int:
        """How often this thread ran while another one encoded."""
        begun, done, count = threading.Event(), threading.Event(), 0

        def encode() -> None:
            begun.set()
            encoder.encode([prompt])
            done.set()

        thread = threading.Thread(target=encode)
        thread.start()
        begun.wait()
        while not done.is_set():
            count += 1
        thread.join()
        return count

    # With the GIL held throughout, the loop would see at most one switch. A busy machine may not run it either: again then.
    assert any(ticks() > 100 for _ in range(5))


def test_the_example_in_the_documentation_is_true(tmp_path):
    tree = tokenizer_json({"[UNK]": 0, "hello": 1, "!": 2})
    write(tmp_path, {"embeddings": np.ones((3, 4), np.float32)}, tree=tree)
    results = doctest.testmod(static, extraglobs={"folder": tmp_path})
    assert results.attempted == 2
    assert results.failed == 0


@pytest.mark.parametrize("normalize", [True, False], ids=["normalize", "mean"])
@pytest.mark.parametrize("quantized", [True, False], ids=["vocabulary quantized", "plain"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_embedding_equals_model2vec(rng, tmp_path, dtype, quantized, normalize):
    model2vec = pytest.importorskip("model2vec", reason=skips.MODEL2VEC)
    made = tensors(rng, dtype, 96, quantized, quantized)
    model = model2vec.StaticModel(
        made["embeddings"],
        library(TREE),
        normalize=normalize,
        weights=made.get("weights"),
        token_mapping=made.get("mapping"),
    )
    model.save_pretrained(tmp_path)
    encoder = StaticEncoder.from_folder(tmp_path, max_tokens=100_000)
    assert encoder.tokenizer.kind == "wordpiece"
    prompts = [prompt for prompt in some_prompts(80, seed=4) if "[" not in prompt]  # model2vec takes [CLS] for a token
    expected = model.encode(prompts, max_length=None)
    x = encoder.encode(prompts).x
    # model2vec rounds a float16 table's mean to float16, and once more after dividing by the norm.
    half = 2.0**-11 if expected.dtype == np.float16 else 0.0
    for row, prompt in enumerate(prompts):
        ids = [id for id in encoder.tokenizer.encode(prompt)[0].tolist() if id != VOCAB["[UNK]"]]
        exact, bound = reference(made, ids, normalize)
        slack = 2.0**-24 if half else 0.0  # subnormal float16
        allowed = 3 * bound + half * (3 * np.abs(exact) + np.linalg.norm(exact) / 8) + slack
        assert (np.abs(x[row] - expected[row].astype(np.float64)) <= allowed).all(), repr(prompt)
