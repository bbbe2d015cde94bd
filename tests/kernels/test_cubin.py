"""Cubins: built without a GPU, no spill in what we ship, metadata that agrees with them; loading refuses by name.

The build runs in a process of its own, since this one runs Triton's interpreter. No launch is tested here without a GPU.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import replace

import pytest

from ipr_engine.cuda import driver
from ipr_engine.errors import BackendUnavailableError, CubinError, InvalidInputError
from ipr_engine.kernels.build import AOT_VARIANTS
from ipr_engine.kernels.cubin import CubinKernel, CubinMetadata, LaunchDriver, pack_arguments, runs_on, write
from ipr_engine.kernels.variant import KernelVariant, launch_params
from tests.support import skips
from tests.support.cubin_builds import run_build

BUILT = {
    "sm_80": ["trunk", "trunk_fp16_norm_pooled"],
    "sm_90": [
        "linear",
        "trunk_fp16_pooled",
        "trunk_fp16_norm_pooled",
        "trunk_768_norm_pooled",
        "trunk_1000",
        "forest",
        "adapters",
    ],
    "sm_100": ["trunk", "trunk_fp16_norm_pooled"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("triton", reason=skips.GPU)
    folder = tmp_path_factory.mktemp("cubins")
    for arch, names in BUILT.items():
        done = run_build("--arch", arch, "--out", folder, *(f"--shipped={name}" for name in names))
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def metadata():
    """As build.py makes it, of bytes that are no cubin."""
    variant, params = AOT_VARIANTS["linear"][0], launch_params(11, 384)
    return CubinMetadata.of(
        b"no cubin", kernel="decide_kernel", arch="sm_90", shared_bytes=0, triton="3.9.0", variant=variant, params=params,
        resources={"registers": 1, "stack_bytes": 0, "local_bytes": 0},
    )  # fmt: skip


def path_of(folder, name, arch):
    variant, models = AOT_VARIANTS[name]
    return folder / f"{variant.on(arch).name(variant.launch_params(models, arch))}.{arch}.json"


@pytest.mark.parametrize(("arch", "name"), [(arch, name) for arch, names in BUILT.items() for name in names])
def test_what_we_ship_neither_spills_nor_uses_local_memory(folder, arch, name):
    built = CubinMetadata.read(path_of(folder, name, arch))
    assert (built.stack_bytes, built.local_bytes) == (0, 0)
    assert 0 < built.registers <= 255
    assert built.shared_bytes <= 48 << 10
    assert built.arch == arch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "name"), [(arch, name) for arch, names in BUILT.items() for name in AOT_VARIANTS if name not in names]
)
def test_no_variant_that_is_built_ahead_spills(tmp_path, arch, name):
    pytest.importorskip("triton", reason=skips.GPU)
    done = run_build("--arch", arch, "--out", tmp_path, f"--shipped={name}")
    assert done.returncode == 0, done.stderr
    built = CubinMetadata.read(path_of(tmp_path, name, arch))
    assert (built.stack_bytes, built.local_bytes) == (0, 0)


def test_metadata_names_the_parameters_that_the_cubin_has(folder):
    """Read from the ELF by cuobjdump; build.py refuses to write what disagrees."""
    code = (
        "import sys, pathlib; from ipr_engine.kernels.build import read_parameter_bytes as read; "
        "print(read(pathlib.Path(sys.argv[1]).read_bytes()))"
    )
    path = path_of(folder, "trunk_1000", "sm_90")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path.with_suffix(".cubin"))], capture_output=True, text=True, check=True
    )
    built = CubinMetadata.read(path)
    assert str(built.argument_bytes()) == done.stdout.strip()
    assert built.arguments == tuple(AOT_VARIANTS["trunk_1000"][0].signature().items())


def test_metadata_survives_its_file(tmp_path, metadata):
    assert CubinMetadata.read(write(tmp_path, b"no cubin", metadata)) == metadata


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 2}', '{"schema_version": 1, "kernel": "x"}'])
def test_damaged_metadata_is_refused(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(CubinError, match=r"x\.json: "):
        CubinMetadata.read(path)


def test_programmatic_dependent_launch_is_refused_before_sm_90(tmp_path):
    done = run_build("--arch", "sm_80", "--out", tmp_path, "--models", 11, "--dim", 8, "--pdl")
    assert done.returncode == 2
    assert "error: pdl: expected an architecture from sm_90 on, got sm_80" in done.stderr


def test_an_unknown_variant_is_refused_before_compiling(tmp_path):
    done = run_build("--arch", "sm_70", "--out", tmp_path)
    assert done.returncode == 2
    assert "invalid choice: 'sm_70'" in done.stderr


def test_arguments_are_packed_at_their_widths(metadata):
    class Tensor:
        def data_ptr(self):
            return 0x7F0000001000

    values = [Tensor() if kind.startswith("*") else -at for at, (_, kind) in enumerate(metadata.arguments)]
    packed, held = pack_arguments(metadata, values)
    assert len(packed) == len(metadata.argument_bytes()) == len(held)
    for at, size in enumerate(metadata.argument_bytes()):
        number = (ctypes.c_uint64 if size == 8 else ctypes.c_int32).from_address(packed[at]).value
        hidden = at >= len(values)
        assert number == (0 if hidden else 0x7F0000001000 if size == 8 else -at)


def test_arguments_that_do_not_fit_are_named(metadata):
    values = [0] * len(metadata.arguments)
    with pytest.raises(InvalidInputError, match=r"^arguments: expected"):
        pack_arguments(metadata, values[1:])
    with pytest.raises(InvalidInputError, match=r"^tokens: expected a 32-bit integer"):
        pack_arguments(metadata, [*values[:-1], 2**31])
    with pytest.raises(InvalidInputError, match=r"^x: expected an address"):
        pack_arguments(metadata, [1.5, *values[1:]])


@pytest.mark.parametrize(
    ("built", "device", "runs"),
    [("sm_80", "sm_80", True), ("sm_80", "sm_86", True), ("sm_86", "sm_80", False), ("sm_80", "sm_90", False),
     ("sm_90", "sm_90", True), ("sm_100", "sm_103", False), ("sm_100", "sm_100", True), ("sm_90", "sm_100", False)],
)  # fmt: skip
def test_a_cubin_runs_where_cuda_says(built, device, runs):
    assert runs_on(built, device) is runs


def test_no_driver_is_said_so(monkeypatch):
    monkeypatch.setattr(driver, "LIBRARY", "libcuda-absent.so.1")
    with pytest.raises(BackendUnavailableError, match=r"libcuda-absent\.so\.1 cannot be loaded .*install the driver"):
        LaunchDriver()


def set_through(reference, kind, value):
    """What a driver does with a result it was given the address of."""
    ctypes.cast(reference, ctypes.POINTER(kind))[0] = value


class Library:
    """Answers as the driver would: enough of it to see what is refused, nothing that launches."""

    def __init__(self, *, init=0, devices=1, arch=(8, 0)):
        self.init, self.devices, self.capability = init, devices, arch

    def cuInit(self, _):
        return self.init

    def cuDeviceGetCount(self, count):
        set_through(count, ctypes.c_int, self.devices)
        return 0

    def cuDeviceGetAttribute(self, value, attribute, _):
        set_through(value, ctypes.c_int, self.capability[attribute - 75])
        return 0

    def cuGetErrorString(self, _, text):
        set_through(text, ctypes.c_char_p, b"no CUDA-capable device is detected")
        return 0


def test_no_device_is_said_so():
    with pytest.raises(BackendUnavailableError, match=r"cuInit failed: CUDA error 100 \(no CUDA-capable device"):
        LaunchDriver(Library(init=100))
    with pytest.raises(BackendUnavailableError, match="no CUDA device is visible"):
        LaunchDriver(Library(devices=0))
    with pytest.raises(BackendUnavailableError, match="expected a device from 0 to 0, got 3"):
        LaunchDriver(Library()).arch(3)


def test_a_cubin_of_another_architecture_is_refused_naming_both(folder):
    path = path_of(folder, "trunk", "sm_100")
    with pytest.raises(
        BackendUnavailableError, match="built for sm_100, but device 0 is sm_80; build with --arch sm_80"
    ):
        CubinKernel(path, libcuda=LaunchDriver(Library()))
    variant, models = AOT_VARIANTS["linear"]
    with pytest.raises(CubinError, match=r"for sm_80 \(architectures there: sm_90\)"):
        CubinKernel.find(folder, variant, variant.launch_params(models), libcuda=LaunchDriver(Library()))
    with pytest.raises(CubinError, match=r"architectures there: none\)"):
        CubinKernel.find(folder, KernelVariant(dim=31), launch_params(models, 31), libcuda=LaunchDriver(Library()))


def test_a_cubin_that_is_not_the_one_described_is_refused(folder, tmp_path):
    path = path_of(folder, "trunk", "sm_80")
    (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CubinError, match="its cubin cannot be read"):
        CubinKernel(tmp_path / path.name, libcuda=LaunchDriver(Library()))
    damaged = bytearray(path.with_suffix(".cubin").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / path.with_suffix(".cubin").name).write_bytes(damaged)
    with pytest.raises(CubinError, match="sha256 is not the one stated"):
        CubinKernel(tmp_path / path.name, libcuda=LaunchDriver(Library()))


def test_a_name_does_not_change_with_the_words_about_its_parameters():
    variant, params = AOT_VARIANTS["linear"][0], launch_params(11, 384)
    assert variant.name(params) == variant.name(replace(params, source="measured: elsewhere"))
    assert variant.name(params) != variant.name(replace(params, num_warps=2))
