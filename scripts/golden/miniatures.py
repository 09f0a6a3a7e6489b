"""Miniature chat templates, one for each construct that real ones use: name -> (source, conversations)."""

TURNS = "{%- for m in messages %}"
END = "{%- endfor %}"
HI = ["one"]
SEVERAL = ["several"]
CALLS = ["calls", "two_calls"]


def expression(source):
    """A template that writes one expression."""
    return ("{{ " + source + " }}", HI)


MINIATURES = {
    # What a message may hold, and under which names.
    "chatml": (TURNS + "{{- '<|im_start|>' + m.role + '\\n' + (m.content or '') + '<|im_end|>\\n' }}" + END + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}", ["several", "asked", "unicode", "empty"]),
    "null_keys": (TURNS + "[{{ m.role }}{% if m.tool_calls is defined %} calls{% endif %}{% if 'name' in m %} named{% endif %}{% for key in m %} {{ key }}{% endfor %}]" + END, ["null_keys", "null_content", "calls"]),
    "null_content": (TURNS + "[{{ m.content is none }} {{ m.content is defined }} {{ m['content'] }} {{ m.get('content', 'no') }}]" + END, ["null_content", "one"]),
    "reasoning": (TURNS + "[{{ m.reasoning_content }}|{{ m.thinking }}|{{ m.reasoning }}]{% if m.reasoning_content is string %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}" + END, ["reasoning_content", "thinking", "reasoning", "null_keys"]),
    "keys_in_order": (TURNS + "{% for key, value in m.items() %}{{ key }}={{ value }};{% endfor %}{% for key in m|list %}{{ key }} {% endfor %}" + END, ["one", "reasoning", "thinking", "reasoning_content"]),
    "split_thoughts": (TURNS + "{% set content = m.content %}{% if '</think>' in content %}{% set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}({{ thought }}){% endif %}{{ content }}|" + END, ["think_tags", "one"]),
    # Tools and calls.
    "tools": ("{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{{ tools | tojson(indent=4) }}{% endif %}", ["tools_unused", "one"]),
    "tools_are_none": ("{{ tools is iterable }} {{ tools is none }} {{ tools is defined }} {{ documents is none }} {% if tools is iterable and tools | length > 0 %}{{ tools|length }}{% endif %}", ["one", "tools_unused"]),
    "calls": (TURNS + "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments | tojson }} {{ c['function'] | tojson(ensure_ascii=True) }}{% endfor %}" + END, CALLS),
    "call_arguments": (TURNS + "{% for c in m.tool_calls or [] %}{% for key, value in c.function.arguments|items %}<{{ key }}>{{ value | tojson if value is mapping or (value is sequence and value is not string) else value | string }}</{{ key }}>{% endfor %}{% endfor %}" + END, CALLS),
    "call_literal": (TURNS + "{% for c in m.tool_calls or [] %}{{ {'name': c.function.name, 'arguments': c.function.arguments, 'id': c.id} | tojson }}{{ dict(z=1, a=2, **{'m': 3}) | tojson }}{% endfor %}" + END, CALLS),
    "values_as_text": (TURNS + "{% for c in m.tool_calls or [] %}{{ c.function.arguments }} {{ c.function.arguments.at }}{% for key, value in c.function.arguments.items() %} {{ key ~ '=' ~ value }}{% endfor %} {{ c.function.arguments | string }}{% endfor %}" + END, CALLS),
    # Numbers, truth values and texts as Python writes them.
    "floats": expression("[1e-07, 1e20, 1e16, 1e15, 123456789.123, 0.1 + 0.2, 1.0, 100.0 / 3, 1e-5, 0.0001, -0.0, 5e-324, 1.7976931348623157e308]"),
    "floats_written": ("{{ 1e-07 }} {{ 1e20 }} {{ 1e16 }} {{ 0.5 }} {{ 1.0 }} {{ 1e-5 | string }} {{ 1 / 3 }}", HI),
    "floats_in_texts": expression("1e-07 ~ '|' ~ ([1e-7, 2.5] | join(' '))"),
    "floats_as_json": expression("[1e-07, 1e20, 1e16, 1e15, 0.5, 1.0, 3] | tojson"),
    "integers": expression("[7 // 2, -7 // 2, 7 % 3, -7 % 3, 2 ** 10, 7 / 2, 4 / 2, 10 | float, '12' | int, 'x' | int, 'x' | int(5), 3.9 | int, 3.5 | round, 2.345 | round(2), -3 | abs]"),
    "truth": expression("[true, True, false, False, none, None, 1 == 1.0, not none, '' or 'x', 0 and 1, 'a' in 'cat', 3 in [1, 3], 'k' in {'k': 1}]"),
    "nested_as_text": expression("{'a': [1, 'two', none, true, 2.5, {'b': \"it's\"}], 'c': ('x', 1), 'd': \"line\\nbreak \\\\ \\t é\"}"),
    "compared": expression("[1 < 2 < 3, 'a' < 'b', [1, 2] == [1, 2], {'a': 1} == {'a': 1.0}, (1, 2) == (1, 2), 1 != 2, none == false]"),
    "joined": expression("'a' ~ 1 ~ none ~ true ~ 2.0 ~ [1, 'b'] ~ {'k': 'v'}"),
    "slices": expression("['abcdef'[1:3], 'abcdef'[-2:], 'abcdef'[::-1], [1, 2, 3, 4][::2], messages[1:] | length, messages[-1].role, 'abc'[0], messages[:-1] | length]"),
    "multiplied": expression("'-' * 3 ~ [0] * 2 ~ ([1] + [2])"),
    "conditional": expression("('a' if messages | length > 5) ~ '|' ~ ('b' if true else 'c')"),
    # Filters.
    "filters_on_texts": expression("['  a b '|trim, 'xxaxx'|trim('x'), 'aB'|upper, 'aB'|lower, 'a bC'|title, 'aBc dE'|capitalize, 'a-b-c'|replace('-', '+'), 'a-b-c'|replace('-', '+', 1), 'abc'|length, 'abc'|first, 'abc'|last, 'abc'|list, 'cab'|sort, 'abc'|reverse, '%s is %d'|format('x', 3), 'a'|default('z'), missing|default('z'), ''|default('z', true), 'a<b&\"'|e, 'a\\nb'|indent(2), 'a\\nb'|indent(2, true), 'one two three four'|truncate(length=10), 'one two three four'|truncate(length=10, killwords=true), 'one two three four'|truncate(length=8, end='!'), '<b>x</b>  y'|striptags, 'a'|string]"),
    "filters_on_lists": expression("[[3, 1, 2]|sort, [3, 1, 2]|sort(reverse=true), [3, 1, 2]|min, [3, 1, 2]|max, [1, 2, 3]|sum, [1, 2, 1]|unique|list, [1, 2, 3]|reverse|list, [1, 2, 3]|batch(2)|list, [1, 2, 3]|slice(2)|list, ['a', 'b']|join(', '), [1, none, 2]|select|list, [0, 1]|reject|list, [1, 2, 3, 4]|select('odd')|list, [1, 2]|map('string')|list, ['a', 'B']|map('upper')|join, ['b', 'A', 'c']|sort, ['b', 'A', 'c']|sort(case_sensitive=true)]"),
    "filters_on_messages": expression("[messages|selectattr('role', 'equalto', 'user')|list|length, messages|selectattr('role', '==', 'user')|map(attribute='content')|join('|'), messages|rejectattr('role', 'in', ['user', 'system'])|map(attribute='content')|list, messages|map(attribute='nope', default='none')|list, messages|groupby('role')|length, messages|selectattr('name', 'defined')|list|length, messages|map(attribute='role')|unique|list, messages|sum(attribute='nope', start=3) if false else 3]"),
    "filters_on_mappings": expression("[{'b': 1, 'a': 2}|dictsort, {'b': 1, 'a': 2}|dictsort(by='value'), {'b': 1}|items|list, {'b': 1, 'a': 2}|list, {'b': 1, 'a': 2}|length, {'b': 1, 'a': 2}|tojson(sort_keys=true), {'b': [1]}|tojson(separators=(',', ':')), {'b': 1}|tojson(indent=2)]"),
    "json": expression("['é\\u2028\\n\"\\\\/<>&\\'', [], {}, [[]], {'a': {}}, 1, -1.5, true, none]|tojson"),
    "json_indented": expression("{'a': [1, {'b': []}], 'c': {}, 'é': 'ü'}|tojson(indent=2, ensure_ascii=true)"),
    # Tests.
    "tests": expression("[1 is number, 1.5 is float, 1 is integer, true is boolean, true is true, 'a' is string, [] is sequence, 'a' is sequence, {} is sequence, {} is mapping, [] is iterable, 'a' is iterable, none is iterable, 1 is iterable, missing is iterable, none is none, missing is defined, missing is undefined, 2 is odd, 2 is even, 4 is divisibleby 2, 'a' is in 'abc', 1 is eq 1, 1 is ne 2, 2 is gt 1, 1 is lt 2, 'A' is upper, 'a' is lower, messages is sequence, tools is sequence, (1, 2) is sequence, true is integer, true is number]"),
    "sameas": expression("[true is sameas true, none is sameas none, 1 is sameas true]"),
    # Methods of Python's types.
    "methods_of_texts": expression("['a,b,c'.split(','), 'a,b,c'.split(',', 1), ' a  b '.split(), 'a,b,c'.rsplit(',', 1), 'a\\nb\\r\\nc'.splitlines(), 'a=b=c'.partition('='), 'a=b=c'.rpartition('='), 'abc'.removeprefix('a'), 'abc'.removesuffix('c'), 'abc'.removesuffix('x'), 'abcb'.index('b'), 'abcb'.rindex('b'), 'abc'.find('z'), '7'.zfill(3), '-7'.zfill(4), 'aB'.swapcase(), 'Straße'.casefold(), 'a'.center(5, '*'), 'a'.ljust(3) ~ '|', 'a'.rjust(3), 'a\\tb'.expandtabs(4), 'Ab Cd'.istitle(), 'a_1'.isidentifier(), 'abc'.startswith('ab'), 'abc'.startswith(('x', 'a')), 'abc'.endswith('bc'), 'abab'.count('ab'), 'abab'.replace('a', 'x', 1), 'x'.join(['a', 'b']), 'a-{}-{}'.format(1, 'b'), ' a '.strip(), 'xax'.strip('x'), 'xax'.lstrip('x'), 'xax'.rstrip('x'), 'AbC'.lower(), 'AbC'.upper(), 'a bc'.title(), 'aBC'.capitalize(), '12'.isdigit(), 'ab'.isalpha(), 'a1'.isalnum(), ' '.isspace(), 'AB'.isupper(), 'ab'.islower(), '1'.isnumeric(), '1'.isdecimal(), 'a'.isascii(), 'abc'.translate({97: 'x'}) if false else '']"),
    "methods_of_mappings": expression("[{'a': 1}.get('a'), {'a': 1}.get('b'), {'a': 1}.get('b', 2), {'b': 1, 'a': 2}.keys()|list, {'b': 1, 'a': 2}.values()|list, {'b': 1, 'a': 2}.items()|list, {'a': 1}.copy(), messages[0].get('role'), messages[0].keys()|list, messages[0].items()|list|length]"),
    "methods_of_lists": expression("[[1, 2, 1].count(1), [1, 2, 1].index(2), [1].copy()]"),
    "percent": expression("'%s has %d of %.2f and %5s|%-5s|%05d %%' % ('a', 3, 2.5, 'b', 'c', 42)"),
    "percent_alone": expression("'<%s>' % 'x'"),
    # Statements.
    "loops": (TURNS + "{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('a', 'b') }}{{ loop.previtem.role if loop.previtem is defined }}{{ loop.nextitem.role if loop.nextitem is defined }}{{ loop.changed(m.role) }} " + END, SEVERAL),
    "loop_control": (TURNS + "{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}{% if loop.index > 3 %}{% break %}{% endif %}{% else %}none" + END, SEVERAL),
    "loop_filter": ("{% for m in messages if m.role != 'user' %}{{ loop.index }}{{ m.role }} {% endfor %}{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }} {% endfor %}{% for x in [] %}{% else %}empty{% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}", SEVERAL),
    "recursive": ("{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{{ loop.depth }}{% endif %}{% endfor %}", HI),
    "namespaces": ("{% set ns = namespace(system='', count=0, seen=[]) %}" + TURNS + "{% if m.role == 'system' %}{% set ns.system = m.content %}{% else %}{% set ns.count = ns.count + 1 %}{% set ns.seen = ns.seen + [m.role] %}{% endif %}" + END + "{{ ns.system }} {{ ns.count }} {{ ns.seen }}", SEVERAL),
    "scopes": ("{% set x = 1 %}{% for i in [1, 2] %}{% set x = 5 %}{% endfor %}{{ x }}{% if true %}{% set x = 2 %}{% endif %}{{ x }}{% set y %}block {{ x }}{% endset %}[{{ y }}]{% with z = 3 %}{{ z }}{% endwith %}{{ z is defined }}{% set a, b = 1, 2 %}{{ a }}{{ b }}", HI),
    "macros": ("{% macro turn(role, content='none', end='!') %}<{{ role }}>{{ content }}{{ end }}{% endmacro %}" + TURNS + "{{ turn(m.role, m.content) }}{{ turn(m.role, end='?') }}" + END, SEVERAL),
    "macro_arguments": ("{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, k=4) }}", HI),
    "caller": ("{% macro box(title) %}[{{ title }}: {{ caller() }}]{% endmacro %}{% call box('a') %}inside{% endcall %}", HI),
    "filter_block": ("{% filter upper %}abc{% endfilter %}", HI),
    "raw_and_comments": ("{% raw %}{{ not }} {% generation %}{% endraw %}{# {% generation %} {{ x }} #}{{ '{% generation %}' }}|", HI),
    "white_space": ("a  \n   {% if true %}  \n  b\n   {%- if true -%}  \n c  {%+ if true %} d{% endif %}\n{% endif %}\n  {% endif %}\n{{ 'e' }}\n\n  {#- c -#}  f \n  {{- 'g' -}}  \n h\n", HI),
    "last_newline": ("a\n\n", HI),
    "carriage_returns": ("{% for m in messages %}\r\n{{ m.role }}: {{ m.content }}\r\n{% endfor %}\r\nb\rc\r\n", ["one", "unicode"]),
    "raised": ("{% if messages[0].role != 'system' %}{{ raise_exception('a system message must come first') }}{% endif %}ok", ["one", "system"]),
    "alternating": (TURNS + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}" + END, ["one", "system"]),
    "undefined": (TURNS + "[{{ m.nope }}{{ m.nope is defined }}{{ m['nope'] or 'x' }}{{ nope }}]{% if nope %}{% endif %}{% for x in nope %}{% endfor %}" + END, HI),
    "undefined_deep": ("{{ nope.deeper }}", HI),
    "undefined_added": ("{{ 'a' + nope }}", HI),
    "text_and_none": ("{{ 'a' + none }}", HI),
    "text_and_number": ("{{ 'a' + 1 }}", HI),
    "unknown_method": ("{{ 'a'.nope() }}", HI),
    "unknown_filter": ("{{ 'a'|nope }}", HI),
    "date": ("{{ strftime_now('%d %b %Y %A %B %j %y-%m-%d %H:%M:%S %p %U %W %w %u %-d %%') }}{% if strftime_now is defined %}!{% endif %}", HI),
    "tokens": ("{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}{{ pad_token is defined }}{{ unk_token is defined }}", HI),
    "named_characters": ("{{ '\\N{BULLET}' }}{{ '\\u00e9\\x41\\n' }}", HI),
    "attributes_of_names": ("{{ messages[0].content.strip is defined }}{{ messages[0].items is defined }}", HI),
    "shadowed_keys": ("{% set d = {'items': 1, 'keys': 2} %}{{ d['items'] }}{{ d.get('keys') }}", HI),
    "imported": ("{% import 'x' as y %}", HI),
    # Blocks that mark what the assistant says.
    "generation": (TURNS + "<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n" + END, ["one", "several", "unicode"]),
    "generation_trimmed": (TURNS + "<{{ m.role }}> {%- if m.role == 'assistant' %}\n  {%- generation %}\n  {{- m.content }}\n  {%- endgeneration -%}\n{% else %}{{ m.content }}{% endif %}" + END, SEVERAL),
    "generation_scope": ("{% set x = 1 %}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}{% endif %}{% endfor %}", SEVERAL),
}
