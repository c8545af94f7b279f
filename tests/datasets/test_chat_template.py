"""A chat template writes what its author meant, and one of a stranger's neither runs anything nor runs for ever."""

from __future__ import annotations

import os

import pytest

from bigmodel.datasets.text import chat_template
from bigmodel.datasets.text.chat_template import ChatTemplate
from bigmodel.errors import DataError

CHATML = (
    "{% for message in messages %}\n    {% if message.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}\n"
    "{{ '<|im_start|>' + message.role + '\n' + message.content | trim + eos_token }}\n{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HI = [{"role": "user", "content": " Hi <b>\U0001f600 "}]


@pytest.fixture(scope="module")
def chatml() -> ChatTemplate:
    return ChatTemplate(CHATML, {"eos_token": "<|im_end|>"})


def test_a_conversation_is_written_turn_by_turn(chatml: ChatTemplate) -> None:
    asked = "<|im_start|>user\nHi <b>\U0001f600<|im_end|>\n"
    assert chatml.render(HI) == asked
    assert chatml.render(HI, answer_next=True) == asked + "<|im_start|>assistant\n"
    answered = [*HI, {"role": "assistant", "content": "Ho"}]
    assert chatml.render(answered) == asked + "<|im_start|>assistant\nHo<|im_end|>\n"


def test_it_is_what_transformers_writes() -> None:
    """The words that templates in use need besides jinja2's own."""
    given = "{% generation %}{{ messages | tojson }}{% endgeneration %}{% for n in range(9) %}{% if n == 2 %}"
    given += "{% break %}{% endif %}{{ n }}{% endfor %}{{ strftime_now('%Y') | length }}{{ tools is none }}"
    written = '[{"role": "user", "content": " Hi <b>\U0001f600 "}]014True'
    assert ChatTemplate(given, {}).render(HI) == written


def test_the_message_that_is_refused_is_named(chatml: ChatTemplate) -> None:
    messages = [*HI, {"role": "tool", "content": "9"}, *HI]
    with pytest.raises(DataError, match=r"chat template: message 2 \(tool\): TemplateError: no tools"):
        chatml.render(messages)
    assert chatml.render(HI)  # and it goes on


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ raise_exception.__globals__['sys'].modules['os'].system('touch x') }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% for n in range(10**9) %}{% endfor %}", "OverflowError"),
        ("{% for n in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", "it writes more than 4194304 characters"),
        ("{{ 'x' * 10**11 }}", "MemoryError"),
        ("{% for n in range(99999) %}{% for m in range(99999) %}{% endfor %}{% endfor %}", "was stopped"),
        pytest.param("{{ 7 ** (9 ** (9 ** 9)) }}", "was stopped", marks=pytest.mark.slow),
        ("{% for", "TemplateSyntaxError"),
    ],
)
def test_a_hostile_template_is_stopped(template: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "_CPU_S", 0)  # at most the second that is under way
    hostile = ChatTemplate(template, {})
    with pytest.raises(DataError, match="chat template: ") as caught:
        hostile.render(HI)
    assert why in str(caught.value)


def test_its_process_ends_with_it() -> None:
    template = ChatTemplate("{{ 1 }}", {})
    assert template.render(HI) == "1"
    process = template._process
    assert process is not None
    del template
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
