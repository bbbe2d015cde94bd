"""A bundle without a file that a bundle beside it holds reads that one; what is written of it is whole, wherever it goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ipr_engine.bundle import Bundle, with_extra_files
from ipr_engine.bundle.load import MANIFEST
from ipr_engine.errors import BundleHashError, BundleNotFoundError
from tests.support.bundles import make_bundle

TABLE = "encoders/static/model.safetensors"


@pytest.fixture
def lean(tmp_path: Path) -> tuple[Path, Path]:
    """A bundle without its table, and the one beside it that holds the table: copied, so that no hard link joins them."""
    made, root = tmp_path / "made", tmp_path / "root"
    first = make_bundle(made)
    second = with_extra_files(first, {"card.md": b"another"})
    shutil.copytree(first.parent, root)
    (root / second.name / TABLE).unlink()
    return root / second.name, root / first.name


def test_the_file_is_read_in_the_neighbour(lean: tuple[Path, Path]) -> None:
    second, first = lean
    bundle = Bundle.load(second)
    assert bundle.hash == second.name
    assert bundle.encoders[0].files["table"] == first / TABLE


def test_a_bundle_written_of_it_is_whole_in_another_root_and_in_its_own(
    lean: tuple[Path, Path], tmp_path: Path
) -> None:
    second, first = lean
    for root in (tmp_path / "elsewhere", second.parent):
        written = with_extra_files(Bundle.load(second), {"more.md": b"more"}, root=root)
        assert (written / TABLE).read_bytes() == (first / TABLE).read_bytes()
    shutil.rmtree(second.parent)
    assert Bundle.load(tmp_path / "elsewhere").extra_files.keys() == {"card.md", "more.md"}


def test_the_same_bundle_written_again_elsewhere_has_its_hash(lean: tuple[Path, Path], tmp_path: Path) -> None:
    second, _ = lean
    whole = with_extra_files(Bundle.load(second), {}, root=tmp_path / "elsewhere")
    assert whole.name == second.name
    assert (whole / TABLE).exists()


def test_without_the_neighbour_it_is_missing(lean: tuple[Path, Path], tmp_path: Path) -> None:
    second, first = lean
    shutil.copytree(second, tmp_path / "copy" / second.name)
    shutil.copytree(second, second.parent / "renamed")  # named by no hash: a copy has no neighbours
    for alone in (tmp_path / "copy" / second.name, second.parent / "renamed"):
        with pytest.raises(BundleNotFoundError, match=r"model\.safetensors .*the bundle beside it"):
            Bundle.load(alone)
    shutil.rmtree(first)
    with pytest.raises(BundleNotFoundError, match=r"model\.safetensors"):
        Bundle.load(second)


def test_a_link_to_the_bundle_reads_what_the_bundle_reads(lean: tuple[Path, Path], tmp_path: Path) -> None:
    second, first = lean
    for link in (second.parent / "live", tmp_path / "live", tmp_path / second.name):
        link.symlink_to(second)
        assert Bundle.load(link).encoders[0].files["table"].samefile(first / TABLE)
    (moved := tmp_path / "store").mkdir()
    second = second.rename(moved / "second")  # what is meant has another name: the link's own neighbours count
    (link := lean[0]).symlink_to(second)
    assert Bundle.load(link).encoders[0].files["table"] == first / TABLE


def test_other_bytes_under_the_same_path_are_no_such_file(lean: tuple[Path, Path]) -> None:
    second, first = lean
    data = bytearray((first / TABLE).read_bytes())
    data[-1] ^= 1
    (first / TABLE).write_bytes(data)
    with pytest.raises(BundleNotFoundError, match=r"model\.safetensors"):
        Bundle.load(second)


def test_a_file_of_its_own_is_never_passed_over(lean: tuple[Path, Path]) -> None:
    second, first = lean
    (second / TABLE).write_bytes(bytes((first / TABLE).stat().st_size))
    with pytest.raises(BundleHashError, match=r"model\.safetensors"):
        Bundle.load(second)


def test_a_link_out_of_the_neighbour_is_not_followed(lean: tuple[Path, Path], tmp_path: Path) -> None:
    second, first = lean
    shutil.move(first / TABLE, tmp_path / "outside")
    (first / TABLE).symlink_to(tmp_path / "outside")
    with pytest.raises(BundleNotFoundError, match=r"model\.safetensors"):
        Bundle.load(second)


def test_the_manifest_is_never_a_neighbours(lean: tuple[Path, Path]) -> None:
    second, _ = lean
    (second / MANIFEST).unlink()
    with pytest.raises(BundleNotFoundError):
        Bundle.load(second)
