"""A decision of the gate as Markdown, for comments on pull requests and Prefect's pages of a run. Pure."""

from tasks.gate import IDENTITY, Decision, RuleResult
from tasks.rules import RULES

VERSUS = {name for name, measure in RULES.items() if measure.versus}
OF_DETECTOR = {"max_detector_false_positives"}
OF_FAILURES = {"max_copied_failures", "max_invented_failures"}


def gate_table(decision: Decision) -> str:
    """The verdict, the two blessings, then a row for each rule: what was found, against what, and the limit."""
    lines = [
        f"**{'Passed' if decision.passed else 'Refused'}:** {cell(decision.reason)}",
        "",
        f"- Quality: {'blessed' if decision.quality else '**not blessed**'}",
        f"- Runs on the target: {'blessed' if decision.target else '**not blessed**'}",
        "",
        "| rule | against | found | limit | verdict |",
        "|---|---|---|---|---|",
        *(row(result) for result in decision.results),
    ]
    for rules, why in (
        (VERSUS, "there is no champion"),
        (RULES.keys() - VERSUS - OF_DETECTOR - OF_FAILURES, "the teacher was not asked for video"),
        (OF_DETECTOR, "the stage detector is left out"),
        (OF_FAILURES, "too little is known of what the teacher usually does"),
    ):
        names = ", ".join(f"`{name}`" for name in decision.skipped if name in rules)
        if names:
            lines += ["", f"Not judged, as {why}: {names}."]
    return "\n".join(lines) + "\n"


def row(result: RuleResult) -> str:
    """One rule."""
    if result.name in IDENTITY:
        found, limit = "yes" if result.passed else "no", "yes"
    else:
        unit = RULES[result.name].unit if result.name in RULES else ""  # a rule that there was once
        sign = "≥" if result.name.startswith("min_") else "≤"
        found = "unknown" if result.value is None else f"{result.value:.4g}{unit}"
        limit = f"{sign} {result.limit:g}{unit}"
    verdict = "passed" if result.passed else "**failed**"
    return f"| `{result.name}` | {cell(result.against)} | {found} | {limit} | {verdict} |"


def cell(text: str) -> str:
    """Text that stays in its cell and on its line."""
    return " ".join(text.replace("|", "/").split())
