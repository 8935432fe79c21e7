"""Labels: tasks for annotators, answers, the store that keeps them, files."""

from typing import TYPE_CHECKING

from jaxdesign._lazy import lazily
from jaxdesign.preference._extras import needed_for

_HOMES = {
    "LabelRecord": "tasks",
    "LabelStore": "store",
    "Labels": "labels",
    "Task": "tasks",
    "answered": "tasks",
    "as_labels": "labels",
    "check_labels": "labels",
    "check_tasks": "tasks",
    "concatenated": "labels",
    "counted": "labels",
    "counted_by_annotator": "labels",
    "make_tasks": "tasks",
    "read_answers": "task_files",
    "task_id": "tasks",
    "write_preferences": "preference_files",
    "write_tasks": "task_files",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from jaxdesign.preference.labels.labels import Labels as Labels
    from jaxdesign.preference.labels.labels import as_labels as as_labels
    from jaxdesign.preference.labels.labels import check_labels as check_labels
    from jaxdesign.preference.labels.labels import concatenated as concatenated
    from jaxdesign.preference.labels.labels import counted as counted
    from jaxdesign.preference.labels.labels import counted_by_annotator as counted_by_annotator
    from jaxdesign.preference.labels.preference_files import write_preferences as write_preferences
    from jaxdesign.preference.labels.store import LabelStore as LabelStore
    from jaxdesign.preference.labels.task_files import read_answers as read_answers
    from jaxdesign.preference.labels.task_files import write_tasks as write_tasks
    from jaxdesign.preference.labels.tasks import LabelRecord as LabelRecord
    from jaxdesign.preference.labels.tasks import Task as Task
    from jaxdesign.preference.labels.tasks import answered as answered
    from jaxdesign.preference.labels.tasks import check_tasks as check_tasks
    from jaxdesign.preference.labels.tasks import make_tasks as make_tasks
    from jaxdesign.preference.labels.tasks import task_id as task_id
else:  # or any misspelt name would have a type
    __getattr__, __dir__ = lazily(__name__, _HOMES, during=needed_for)
