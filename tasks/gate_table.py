"""A decision of the gate as Markdown, for comments on pull requests and Prefect's pages of a run. Pure."""

from tasks.evidence_kinds import EVERY_RULE
from tasks.gate import IDENTITY, Decision, RuleResult

NO_CHAMPION = "there is no champion"


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
    for why, names in not_judged(decision).items():
        lines += ["", f"Not judged, as {why}: {', '.join(f'`{name}`' for name in names)}."]
    return "\n".join(lines) + "\n"


def not_judged(decision: Decision) -> dict[str, list[str]]:
    """The rules that were skipped, by the reason why, in words."""
    beside_champion = any(measure.versus for result in decision.results if (measure := EVERY_RULE.get(result.name)))
    found: dict[str, list[str]] = {}
    for name in decision.skipped:
        measure = EVERY_RULE.get(name)  # none of a rule that there was once
        why = measure.unless if measure and (beside_champion or not measure.versus) else NO_CHAMPION
        found.setdefault(why, []).append(name)
    return found


def row(result: RuleResult) -> str:
    """One rule."""
    if result.name in IDENTITY:
        found, limit = "yes" if result.passed else "no", "yes"
    else:
        unit = EVERY_RULE[result.name].unit if result.name in EVERY_RULE else ""  # a rule that there was once
        sign = "≥" if result.name.startswith("min_") else "≤"
        found = "unknown" if result.value is None else f"{result.value:.4g}{unit}"
        limit = f"{sign} {result.limit:g}{unit}"
    verdict = "passed" if result.passed else "**failed**"
    return f"| `{result.name}` | {cell(result.against)} | {found} | {limit} | {verdict} |"


def cell(text: str) -> str:
    """Text that stays in its cell and on its line."""
    return " ".join(text.replace("|", "/").split())
