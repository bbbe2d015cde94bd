"""The house as it is promised to be: floors, names and sizes of every module (docs/design.md); `make lint` holds the layers."""

import pytest

from tests.support.structure import Structure, circles, longest_chain

MOST_FLOORS = 12
SERVER_FLOORS = 2  # the server and its command stand on the faces of the engine
ONBOARDING_FLOORS = 1  # what goes the whole way stands on every step of it
MOST_PARAMETERS = 8
MOST_LINES = 400


@pytest.fixture(scope="module")
def structure():
    return Structure()


def test_no_module_imports_one_that_imports_it(structure):
    assert circles(structure.graph) == []


def test_no_room_imports_one_that_imports_it(structure):
    assert circles(structure.rooms) == []


def test_the_longest_chain_of_imports_is_short(structure):
    chain = longest_chain(structure.graph)
    assert len(chain) <= MOST_FLOORS + SERVER_FLOORS, " -> ".join(chain)
    served = {"ipr_engine.cli.serve", *(name for name in structure.graph if name.startswith("ipr_engine.server"))}
    others = {name: found - served for name, found in structure.graph.items() if name not in served}
    chain = longest_chain(others)
    assert len(chain) <= MOST_FLOORS + ONBOARDING_FLOORS, " -> ".join(chain)
    whole = {"ipr_engine.cli.init", *(name for name in others if name.startswith("ipr_engine.onboarding"))}
    chain = longest_chain({name: found - whole for name, found in others.items() if name not in whole})
    assert len(chain) <= MOST_FLOORS, " -> ".join(chain)


def test_nothing_in_the_package_imports_its_face(structure):
    assert structure.importers_of_the_face() == []


def test_nothing_in_the_package_imports_the_benchmarks_the_studies_or_the_tests(structure):
    for module in structure.modules.values():
        roots = {base.removeprefix("ipr_engine.").partition(".")[0] for base, _ in module.imports()}
        assert not roots & {"benchmarks", "studies", "tests"}, module.name


def test_kernels_stand_on_decide_and_the_cuda_driver_alone(structure):
    below = {"ipr_engine.decide.contract", "ipr_engine.cuda.driver", "ipr_engine.errors", "ipr_engine._extras"}
    kernels = {name for name in structure.modules if name.startswith("ipr_engine.kernels")}
    assert kernels
    for name in kernels:
        assert structure.graph.get(name, set()) <= below | kernels, name


def test_what_gpu_tiers_share_knows_none_of_them(structure):
    for name in structure.graph:
        if name.startswith("ipr_engine.cuda."):
            rooms = {structure.modules[target].room for target in structure.graph[name]}
            assert not rooms & {"encoders", "kernels", "gpu_router", "bundle", "policy"}, name


def test_a_public_class_name_means_one_thing(structure):
    assert {name: places for name, places in structure.public_classes().items() if len(places) > 1} == {}


def test_a_file_name_means_one_thing(structure):
    assert {stem: places for stem, places in structure.stems().items() if len(places) > 1} == {}


def test_functions_take_few_parameters(structure):
    assert structure.wide_functions(MOST_PARAMETERS) == []


def test_options_objects_have_few_fields(structure):
    assert structure.wide_options(MOST_PARAMETERS) == []
    assert ("calibrate", "CertifyOptions", 7) in structure.wide_options(6)  # the count is one that finds


def test_files_are_short_enough_to_hold(structure):
    lines = {m.name: len(m.path.read_text(encoding="utf-8").splitlines()) for m in structure.modules.values()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
