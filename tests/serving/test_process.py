"""Fork after load, and the interpreter's end with work in flight: in processes of their own."""

import os

import pytest

from tests.support import skips
from tests.support.own_processes import run_apart


@pytest.mark.skipif(not hasattr(os, "fork"), reason=f"{skips.HARDWARE} fork")
def test_a_forked_child_serves_the_static_tier_with_counts_and_a_worker_of_its_own(tmp_path):
    assert run_apart(
        tmp_path,
        """
        serving = BatchingEngine(Engine(bundles[0]), cache_entries=5, limits={"inline_chars": 50}).start()
        expected = serving.route("why", tau=0.3).to_dict()
        long = serving.route("why " * 50, tau=0.3).to_dict()

        def child():
            assert serving.counters().requests == 0
            assert serving.route("why", tau=0.3).to_dict() == expected
            assert serving.route("why " * 50, tau=0.3).to_dict() == long  # by a worker of the child's
            assert asyncio.run(ask()) == expected
            assert serving.counters().decided == 2
            assert serving.close()

        async def ask():
            async with AsyncEngine(serving.engine) as other:
                return (await other.route("why", tau=0.3)).to_dict()

        in_child(child)
        assert serving.counters().decided == 2
        print("served")
        """,
    ) == ["served"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason=f"{skips.HARDWARE} fork")
def test_a_forked_child_is_told_that_another_tier_must_be_loaded_there(tmp_path):
    assert run_apart(
        tmp_path,
        """
        engine, encoder = queued_engine(bundles[0])
        serving = BatchingEngine(engine).start()
        gate = encoder.on_encode = Gate()
        waiting = threading.Thread(target=lambda: serving.route("how", tau=0.3))
        waiting.start()
        gate.entered.wait(20)

        def child():
            for call in (lambda: serving.route("why", tau=0.3), serving.start):
                try:
                    call()
                except NotServingError as error:
                    assert "load the engine in the child" in str(error)
                else:
                    raise AssertionError("served")
            assert serving.close()

        in_child(child)
        gate.open()
        waiting.join()
        assert serving.route("why", tau=0.3).status == "ok"
        print("went on")
        """,
    ) == ["went", "on"]


def test_the_interpreter_ends_with_an_open_engine(tmp_path):
    assert run_apart(
        tmp_path,
        """
        engine, _ = queued_engine(bundles[0])
        serving = AsyncEngine(engine)
        serving.blocking.start()
        print(serving.route_blocking("why", tau=0.3).status)
        """,
    ) == ["ok"]


def test_the_interpreter_ends_with_requests_in_flight_and_waiting(tmp_path):
    assert (
        run_apart(
            tmp_path,
            """
        engine, encoder = queued_engine(bundles[0])
        serving = BatchingEngine(engine).start()
        gate = encoder.on_encode = Gate()

        def ask(prompt):
            try:
                serving.route(prompt, tau=0.3)
            except NotServingError:
                print("refused", prompt, flush=True)

        for prompt in ("first", "second"):
            threading.Thread(target=ask, args=(prompt,), daemon=True).start()
        gate.entered.wait(20)
        threading.Timer(0.2, gate.open).start()
        print("leaving")
        """,
        )[0]
        == "leaving"
    )


def test_a_forward_that_never_ends_does_not_keep_the_interpreter(tmp_path):
    assert run_apart(
        tmp_path,
        """
        from ipr_engine.serving import service
        service.EXIT_TIMEOUT_S = 0.2
        engine, encoder = queued_engine(bundles[0])
        serving = BatchingEngine(engine).start()
        entered = threading.Event()
        encoder.on_encode = lambda prompts: (entered.set(), threading.Event().wait())
        threading.Thread(target=serving.route, args=("why",), kwargs={"tau": 0.3}, daemon=True).start()
        entered.wait(20)
        print("leaving")
        """,
    ) == ["leaving"]


def test_an_exception_in_the_program_ends_it_with_the_queue_drained(tmp_path):
    assert run_apart(
        tmp_path,
        """
        engine, encoder = queued_engine(bundles[0])

        async def main():
            async with AsyncEngine(engine) as serving:
                task = asyncio.create_task(serving.route("why", tau=0.3))
                await asyncio.sleep(0)
                try:
                    raise KeyError("the program's own")
                finally:
                    answers.append(task)

        answers = []
        try:
            asyncio.run(main())
        except KeyError:
            print(answers[0].result().status)
        """,
    ) == ["ok"]
