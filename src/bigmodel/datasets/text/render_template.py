"""`python render_template.py CPU_S LARGEST`: render strangers' chat templates in a process apart, a JSON line each.

The module defines nothing to import: a checkpoint's config can call every name of `bigmodel.datasets`. jinja2's sandbox
keeps a template from reaching Python; limits on time, memory and output keep it from running for ever.
"""

if __name__ == "__main__":
    import contextlib
    import json
    import resource
    import sys
    from datetime import datetime
    from typing import Any

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    _MEMORY = 1 << 29  # bytes more than the interpreter itself

    class Generation(Extension):
        """`{% generation %}`, which marks answers in some templates, has no effect on the text."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: object, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, **options)

    def used_s() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    cpu_s, largest = map(int, sys.argv[1:])
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    with contextlib.suppress(OSError, ValueError):  # on systems without /proc the other limits remain
        with open("/proc/self/statm", encoding="ascii") as statm:
            room = int(statm.read().split()[0]) * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
    print("ready", flush=True)
    source, template = None, environment.from_string("")
    for line in sys.stdin:
        answer: dict[str, str] = {}
        try:
            asked = json.loads(line)
            resource.setrlimit(resource.RLIMIT_CPU, (int(used_s()) + 1 + cpu_s, resource.RLIM_INFINITY))
            parts: list[str] = []
            size = 0
            if asked["template"] != source:  # compiling takes seven times as long as rendering
                source, template = None, environment.from_string(asked["template"])
                source = asked["template"]
            for part in template.generate(asked["variables"]):
                size += len(part)
                if size > largest:
                    raise ValueError(f"it writes more than {largest} characters")
                parts.append(part)
            answer["text"] = "".join(parts)
        except Exception as error:  # a template can raise anything
            answer["error"] = f"{type(error).__name__}: {error}"[:500]
        print(json.dumps(answer), flush=True)
