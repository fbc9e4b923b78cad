"""`cwjax evaluate`: what a model hears under a ladder of contexts, scored and reported."""

import argparse
import contextlib
from pathlib import Path

from cwjax.errors import CwjaxError
from cwjax.machine import keep_compiled_programs


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.description = (
        "Transcribes a prepared corpus or a public suite under several conditions, and writes report.html, report.json "
        "and, for cwjax score, hypotheses.jsonl. The conditions: docs/evaluation.md."
    )
    parser.add_argument("--model", required=True, help="whatever cwjax.load takes, such as runs/demo/model or base")
    parser.add_argument("--data", help="prepared corpus, such as data/demo-prepared, or folder of the suite")
    parser.add_argument("--suite", metavar="NAME", help="public suite, such as is21/test-clean.biasing_100")
    parser.add_argument("--output", help="folder of the report (default: MODEL/../evaluation-SPLIT or -SUITE)")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="of the corpus (test)")
    parser.add_argument(
        "--conditions",
        nargs="+",
        default=(),
        metavar="CONDITION",
        help="what the model is told, such as none topic phrases:100 phrases:100:hotwords (default: right none wrong)",
    )
    parser.add_argument("--word-timestamps", action="store_true", help="write the times of words, too")
    parser.add_argument("--spotter", metavar="FILE", help="phrase spotter of this model")
    parser.add_argument("--seen", metavar="DIR", help="prepared corpus of the training, for rates of words not in it")
    parser.add_argument("--resume", action="store_true", help="take over lines that are there and would be the same")
    parser.add_argument("--batch-size", type=int, default=64, help="windows at once (default: 64)")
    parser.add_argument("--examples", type=int, default=0, help="only the first so many items (default: all)")
    parser.add_argument("--distributed", metavar="SETTING", help="one of several processes, as of cwjax train")
    parser.add_argument("--debug", action="store_true", help="show the traceback of errors")


def run(options: argparse.Namespace) -> int:
    """Evaluates, and gives the exit status."""
    import jax

    from cwjax import __version__, load
    from cwjax.data.prepared.corpus import PreparedCorpus
    from cwjax.evaluation.conditions import Condition
    from cwjax.evaluation.evaluate import Ladder, evaluate, evaluate_items
    from cwjax.evaluation.evaluator import Evaluator
    from cwjax.evaluation.seen_words import training_words
    from cwjax.evaluation.transcription import CONDITIONS
    from cwjax.inference.options import DecodingOptions
    from cwjax.processes import joined
    from cwjax.training.fingerprint import fingerprint
    from cwjax.training.metrics import read_metrics

    if options.suite:
        from cwjax.evaluation.suites import open_suite

    if options.batch_size < 1:
        raise CwjaxError("--batch-size must be at least 1")
    if options.examples < 0:
        raise CwjaxError("--examples must not be negative")
    if not options.data and not options.suite:
        raise CwjaxError("--data is missing; give a prepared corpus, or a --suite")
    names = options.conditions or CONDITIONS
    conditions = [Condition.named(name) for name in names]
    part = options.suite.replace("/", "-") if options.suite else options.split
    place = Path(options.model).resolve()
    home = place.parent
    title = options.model if not place.exists() else home.name if place.name == "model" else place.name
    output = Path(options.output or home / f"evaluation-{part}")
    for option, given in (("--model", options.model), ("--data", options.data)):
        if given and output.resolve() == Path(given).resolve():
            raise CwjaxError(f"--output {output}: is what {option} names, and that stays as it is; name another folder")
    keep_compiled_programs()
    with joined(options.distributed) if options.distributed else contextlib.nullcontext():
        corpus = None if options.suite else PreparedCorpus.read(options.data)
        items = list(open_suite(options.suite, options.data, options.examples)) if options.suite else []
        model = load(options.model, spotter=options.spotter)
        dtype = jax.tree.leaves(model.params)[0].dtype
        evaluator = Evaluator(lambda _: model.transcriber, dtype, corpus, options.batch_size)
        ladder = Ladder(
            names,
            DecodingOptions(word_timestamps=options.word_timestamps),
            model.takes_context,
            any("phrases" in one.ways for one in conditions) and model.spots_phrases,
            f"cwjax {__version__} {sorted(fingerprint(model.params).items())} {options.spotter}",
            options.resume,
            dataset=options.suite.partition("/")[0] if options.suite else Path(options.data).resolve().name,
            split=options.suite.partition("/")[2] or "test" if options.suite else options.split,
            seen=training_words(options.seen) if options.seen else frozenset(),
        )
        facts = model.source.facts() | {"evaluated on": options.suite or options.data, "evaluated with": __version__}
        told = facts, read_metrics(output), ladder
        if options.suite:
            evaluate_items(evaluator, model.params, items, output, f"{title}: {options.suite}", *told)
        else:
            evaluate(evaluator, model.params, output, options.split, options.examples, title, *told)
    return 0
