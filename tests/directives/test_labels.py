"""Labels that a Dockerfile must not set."""

from __future__ import annotations

from mypaas_git.directives.labels import label_faults


def test_labels_in_their_many_forms() -> None:
    """Both forms of LABEL, quoted or not; a value that speaks of us is none of our business."""
    text = b"FROM a\nLABEL b=traefik.x 'mypaas.y'=1\nLABEL traefik.z on\nLABEL c mypaas.d\n"
    assert [each.number for each in label_faults(text)] == [2, 3]


def test_labels_to_come_and_labels_in_a_file() -> None:
    """What is left to images built upon this one counts, what a heredoc holds does not."""
    text = b"FROM a\nONBUILD LABEL mypaas.x=1\nCOPY <<E /x\nLABEL mypaas.x=1\nE\n"
    assert [each.number for each in label_faults(text)] == [2]
