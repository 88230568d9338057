"""GSM8K: word problems whose answer is one number, scored by lm-eval with a task of ours (`../tasks/gsm8k.yaml`).

Scores: strict, the number after "#### " equals the gold one; flexible, the last number of the answer does. Both are
compared as text without commas, dollar signs and a final full stop, so 18 is not 18.0.

Source: Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021. Left out: majority votes over samples.
"""

import contextlib
import io
import logging
import random
import sys
from importlib import resources

import yaml

from idlora.data.templates import eval_prompt
from idlora.evals.items import Prompt, record

FILTERS = ("strict", "flexible")


def check(protocol) -> None:
    protocol.refuse(samples=1, template="alpaca", judge=None)


def run(rows, *, protocol, ask, fewshot_rows, **_) -> list[dict]:
    """Records of all rows ("id", "question", "answer"); parsed holds the reading of each filter."""
    import lm_eval  # 0.7 s with its evaluator, so only where it is used
    from datasets import Dataset
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    documents = {
        split: Dataset.from_list([{**row, "prompt": eval_prompt("gsm8k", row, protocol.template)} for row in some])
        for split, some in (("test", rows), ("fewshot", fewshot_rows))
        if some
    }
    task = yaml.safe_load((resources.files("idlora.evals") / "tasks" / "gsm8k.yaml").read_text())
    task |= {"custom_dataset": lambda **_: documents, "num_fewshot": protocol.num_fewshot}
    if not fewshot_rows:
        task.pop("fewshot_split")
    asked: dict[str, tuple[Prompt, str]] = {}
    stderr = sys.stderr

    class Asked(LM):
        """lm-eval's view of the model: it sends all questions at once and gets all answers."""

        def generate_until(self, requests, disable_tqdm=False):
            with contextlib.redirect_stderr(stderr):
                prompts = [Prompt(rows[request.doc_id], request.args[0]) for request in requests]
                answers = [answer for (answer,) in ask(prompts, stop=requests[0].args[1]["until"])]
                asked.update((p.item_id, (p, a)) for p, a in zip(prompts, answers, strict=True))
                return answers

        def loglikelihood(self, requests, disable_tqdm=False):
            raise NotImplementedError("this task only generates")

        loglikelihood_rolling = loglikelihood

    with _undisturbed():
        # evaluate and not simple_evaluate, which would reseed every generator and ask git about the working folder
        results = lm_eval.evaluate(
            Asked(), TaskManager(include_defaults=False).load([task]), bootstrap_iters=0, log_samples=True
        )
    read = {(rows[s["doc_id"]]["id"], s["filter"]): s for s in results["samples"][task["task"]]}
    records = []
    for row in rows:
        prompt, raw = asked[row["id"]]
        by_filter = {name: read[row["id"], name] for name in FILTERS}
        records.append(
            record(
                prompt,
                0,
                raw,
                parsed={name: sample["filtered_resps"][0] for name, sample in by_filter.items()},
                gold=row["answer"].rpartition("####")[2].strip(),
                scores={name: float(sample["exact_match"]) for name, sample in by_filter.items()},
            )
        )
    return records


@contextlib.contextmanager
def _undisturbed():
    """lm-eval logs each setting, draws a bar of its own, and draws names for tasks from everybody's random numbers."""
    logger = logging.getLogger("lm_eval")
    level, drawn = logger.level, random.getstate()
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        random.setstate(drawn)
