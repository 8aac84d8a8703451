"""Accuracy of predictions, printed in the lines that log parsers read."""

import os
from collections import OrderedDict

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score

from ..utils import mkdir_if_missing
from .build import EVALUATOR_REGISTRY
from .results import append_result


class EvaluatorBase:
    """What a trainer asks of an evaluator: ``reset``, ``process`` for each batch, ``evaluate``."""

    def __init__(self, cfg):
        self.cfg = cfg

    def reset(self):
        raise NotImplementedError

    def process(self, mo, gt):
        raise NotImplementedError

    def evaluate(self):
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Top-1 classification.

    Args:
        cfg: Reads ``TEST.PER_CLASS_RESULT``, ``TEST.COMPUTE_CMAT`` and ``OUTPUT_DIR``.
        lab2cname: From label to class name, for the table by class.
    """

    context = None
    """What a trainer knows about the evaluation (split, epoch, checkpoint). Set: results go to results.json as well."""

    def __init__(self, cfg, lab2cname=None, **kwargs):
        super().__init__(cfg)
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._y_true, self._y_pred = [], []

    def process(self, mo, gt) -> None:
        """Add a batch.

        Args:
            mo: Logits, (B, C).
            gt: Labels, (B,).
        """
        self._y_true.extend(gt.tolist())
        self._y_pred.extend(mo.argmax(dim=1).tolist())

    def evaluate(self) -> OrderedDict:
        """Print and return the results, in percent.

        Returns:
            accuracy, error_rate, macro_f1, over the classes present; perclass_accuracy with PER_CLASS_RESULT.

        Raises:
            ValueError: Nothing was processed.
        """
        if not self._y_true:
            raise ValueError("Nothing to evaluate: no prediction was processed, the data set's split is empty")
        y_true, y_pred = np.array(self._y_true), np.array(self._y_pred)
        labels = np.unique(y_true)
        total, correct = len(y_true), int((y_true == y_pred).sum())
        accuracy = 100.0 * correct / total
        results = OrderedDict(accuracy=accuracy, error_rate=100.0 - accuracy)
        results["macro_f1"] = float(100.0 * f1_score(y_true, y_pred, average="macro", labels=labels))

        # Log parsers read these lines: "=> result", then "* <name>: <number>%".
        print(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {accuracy:.1f}%\n"
            f"* error: {results['error_rate']:.1f}%\n"
            f"* macro_f1: {results['macro_f1']:.1f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._evaluate_classes(labels, y_true, y_pred)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion_matrix(y_true, y_pred)
        if self.context is not None and self.cfg.OUTPUT_DIR:
            append_result(os.path.join(self.cfg.OUTPUT_DIR, "results.json"), self.context, results)
        return results

    def _evaluate_classes(self, labels, y_true, y_pred) -> float:
        print("=> per-class result")
        accuracies = []
        for label in labels.tolist():
            mine = y_true == label
            total, correct = int(mine.sum()), int((y_pred[mine] == label).sum())
            accuracies.append(100.0 * correct / total)
            print(
                f"* class: {label} ({self._lab2cname.get(label, '')})\ttotal: {total:,}\tcorrect: {correct:,}\t"
                f"acc: {accuracies[-1]:.1f}%"
            )
        mean = float(np.mean(accuracies))
        print(f"* average: {mean:.1f}%")
        return mean

    def _save_confusion_matrix(self, y_true, y_pred):
        # All classes, those without an image too: rows and columns are labels.
        labels = np.arange(max(*self._lab2cname, y_true.max(), y_pred.max()) + 1)
        cmat = confusion_matrix(y_true, y_pred, normalize="true", labels=labels)
        path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        mkdir_if_missing(self.cfg.OUTPUT_DIR)
        torch.save(torch.from_numpy(cmat), path)  # a tensor, so that torch's default loading reads it
        print(f"Confusion matrix is saved to {path}")
