"""Chat templates in the style of models that call tools, as short as what counts in them allows."""

from __future__ import annotations

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from tests.rollout.test_tags_dialogue import byte_tokenizer

# Tools in the system message; thoughts of turns before the last question are dropped; `enable_thinking`.
QWEN3 = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}# Tools
<tools>
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}
</tools><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set ns = namespace(asked=0) %}
{%- for m in messages %}
{%- if m.role == 'user' and not m.content.startswith('<tool_response>') %}{% set ns.asked = loop.index0 %}{% endif %}
{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}<|im_start|>user
{{ m.content }}<|im_end|>
{% elif m.role == 'assistant' %}
{%- set content = m.content or '' %}
{%- set thought = m.reasoning_content or '' %}
{%- if not thought and '</think>' in content %}
{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}<|im_start|>assistant
{% if loop.index0 > ns.asked and (loop.last or thought) %}<think>
{{ thought }}
</think>

{% endif %}{{ content }}
{%- for call in m.tool_calls or [] %}
{%- if content or not loop.first %}{{ '\n' }}{% endif %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% elif m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}
{{- '\n<tool_response>\n' }}{{ m.content }}{{ '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>
{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""

# The same, and it opens the think itself (Qwen3-Thinking-2507, QwQ).
QWEN3_THINKING = QWEN3.replace(
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}", "<think>\n"
)

# Thoughts stand in the content, which is left as it is.
QWEN25 = (
    QWEN3.replace("{%- set thought = m.reasoning_content or '' %}", "{%- set thought = '' %}")
    .replace("{%- if not thought and '</think>' in content %}", "{%- if false %}")
    .replace("(loop.last or thought)", "false")
)

# A message is a text or one call, which is JSON and nothing else; the date; results as JSON.
LLAMA3 = """\
{{- '<|begin|>' }}<|head|>system<|/head|>

Today: {{ strftime_now('%d %b %Y') }}
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}<|eot|>
{%- for m in messages %}
{%- if m.role == 'user' and loop.first and tools %}<|head|>user<|/head|>

Respond with JSON for a function call.
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{{ m.content }}<|eot|>
{%- elif m.role == 'tool' %}<|head|>ipython<|/head|>

{{ m.content | tojson }}<|eot|>
{%- elif m.tool_calls %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}<|head|>assistant<|/head|>

{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}<|eot|>
{%- elif m.role != 'system' %}<|head|>{{ m.role }}<|/head|>

{{ m.content }}<|eot|>
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|head|>assistant<|/head|>

{% endif %}"""

# Thoughts and calls in channels, and the thoughts before a final answer are dropped.
GPT_OSS = """\
{%- for m in messages %}
{%- if m.role == 'assistant' and m.tool_calls %}
{%- if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}
{%- set call = m.tool_calls[0].function %}<|start|>assistant to=functions.{{ call.name }}<|channel|>commentary json
{{- '<|message|>' }}{{ call.arguments | tojson }}<|call|>
{%- elif m.role == 'tool' %}<|start|>functions.search to=assistant<|channel|>commentary
{{- '<|message|>' }}{{ m.content | tojson }}<|end|>
{%- elif m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>
{%- else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""

_CONTROL = ("<|begin|>", "<|head|>", "<|/head|>", "<|eot|>", "<|start|>", "<|message|>", "<|end|>", "<|call|>")


def with_template(template: str) -> PreTrainedTokenizerBase:
    """A tokenizer of one token a byte and a token for each control word of the templates here."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(t, special=True) for t in _CONTROL]})
    tokenizer.chat_template = template
    return tokenizer
