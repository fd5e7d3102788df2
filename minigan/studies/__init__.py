"""Small, seeded experiments: each writes a table, a figure, its protocol and its limits."""

from minigan.studies import dirac, helvetica, rivals, stability, strength
from minigan.studies.report import Budget, Result, Study, cell, summary, timed, write
from minigan.studies.sweeps import SWEEPS

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        strength.STUDY,
        dirac.STUDY,
        helvetica.STUDY,
        stability.STUDY,
        rivals.STUDY,
        *(sweep.study() for sweep in SWEEPS),
    )
}

__all__ = ["STUDIES", "Budget", "Result", "Study", "cell", "summary", "timed", "write"]
