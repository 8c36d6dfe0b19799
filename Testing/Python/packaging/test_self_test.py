"""What `slicer_add_python_unittest` runs of the module: it asks unittest's loader, which knows names of methods only."""

import sys
import unittest

MODULE = "CalibUncertainty"


def test_ctest_collects_the_test_that_needs_no_network_library_and_nothing_else(slicer_application, repository):
    slicer_application.loadModule(repository / MODULE / f"{MODULE}.py")
    names = unittest.TestLoader().getTestCaseNames(sys.modules[MODULE].CalibUncertaintyTest)
    assert list(names) == ["test_theWholeWayWithTheFakeComputation"]


def test_the_demo_model_is_run_by_run_test_under_its_flag_only(slicer_application, repository, monkeypatch):
    slicer_application.loadModule(repository / MODULE / f"{MODULE}.py")
    module = sys.modules[MODULE]
    from CalibUncertaintyPanel import selfTest

    done = []
    monkeypatch.setattr(selfTest, "wholeWayWithFake", lambda case: done.append("fake"))
    monkeypatch.setattr(selfTest, "wholeWayWithDemoModel", lambda case: done.append("demo"))
    monkeypatch.delenv(module.SLOW_TESTS_VARIABLE, raising=False)
    module.CalibUncertaintyTest().runTest()
    assert done == ["fake"]
    monkeypatch.setenv(module.SLOW_TESTS_VARIABLE, "1")
    module.CalibUncertaintyTest().runTest()
    assert done == ["fake", "fake", "demo"]


def test_the_loader_runs_what_it_collects_and_skips_nothing(slicer_application, repository, monkeypatch):
    slicer_application.loadModule(repository / MODULE / f"{MODULE}.py")
    from CalibUncertaintyPanel import selfTest

    done = []
    monkeypatch.setattr(selfTest, "wholeWayWithFake", lambda case: done.append("fake"))
    result = unittest.TestResult()
    unittest.TestLoader().loadTestsFromTestCase(sys.modules[MODULE].CalibUncertaintyTest).run(result)
    assert (result.testsRun, result.skipped, result.errors, result.failures) == (1, [], [], [])
    assert done == ["fake"]
