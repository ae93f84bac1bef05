"""What tests of studies share."""

import pytest


@pytest.fixture
def short_reports(monkeypatch):
    from tests.studies.searches import shorten_reports

    shorten_reports(monkeypatch.setattr)
