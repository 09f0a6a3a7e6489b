"""Expressions of chat templates as transformers renders them, for `crates/qft-train/tests/templates.rs`.

    python scripts/golden/expressions.py                    # into the repository
    python scripts/golden/expressions.py FILE COUNT SEED    # COUNT expressions put together by chance, into FILE

Each is rendered alone, as `{{ expression }}`; what fails in Python is kept as null. `QFT_EXPRESSIONS=FILE cargo test -p
qft-train --test templates` compares with the second kind. Made with transformers 5.24.0 and jinja2 3.1.6.
"""

import itertools
import json
import random
import re
import sys
from pathlib import Path

import transformers.utils.chat_template_utils as utils

REPOSITORY = Path(__file__).resolve().parents[2]

MESSAGES = [
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello!", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": [1.5, None]}}}]},
    {"role": "user", "content": "", "name": "Bob"},
]

# A value of each kind.
VALUES = """none|true|false|0|1|-3|7|2.5|-0.0|1e16|1e-5|''|'a'|'ab c'|"it's"|'3'|[]|[1]|[3, 1, 2]|['b', 'A']|()|(1,)|(1, 'x')|{}|{'a': 1}|{'k': [1], 'b': none}|range(3)|missing|messages|'<b>'|e|'é\\n'""".split("|")
VALUES = [value.replace("e", "'e'|e") if value == "e" else value for value in VALUES]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
TESTS = ["odd", "even", "defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "lower", "upper", "string", "mapping", "number", "sequence", "iterable", "callable", "escaped", "filter", "test", "divisibleby 2", "sameas none", "in [1, 'a']", "eq 1", "ne 1", "gt 1", "lt 1", "ge 1", "le 1", "equalto 'a'", "greaterthan 2", "lessthan 2", "nope"]
FILTERS = ["abs", "list", "length", "count", "first", "last", "string", "int", "float", "upper", "lower", "title", "capitalize", "trim", "sort", "unique|list", "reverse|list", "join", "join('-')", "tojson", "tojson(indent=2)", "tojson(ensure_ascii=true)", "default('d')", "default('d', true)", "d", "min", "max", "sum", "items|list", "dictsort", "map('string')|list", "map('upper')|list", "select|list", "reject|list", "batch(2)|list", "slice(2)|list", "round", "round(1)", "wordcount", "indent", "center(9)", "replace('a', 'b')", "e", "safe", "urlencode", "striptags", "truncate(5)", "format", "attr('items') is defined", "groupby(0)", "nope", "selectattr('a')|list", "map(attribute='a')|list", "string|length"]
ATTRIBUTES = ["items", "keys", "strip", "append", "x", "a", "__class__", "role", "count", "content"]

WRITTEN = r'''
# Numbers as text.
1e16 ~ '|' ~ 1e15 ~ '|' ~ 123456789012345680.0
1e-4 ~ '|' ~ 1e-5 ~ '|' ~ 0.00012345
[0.1 + 0.2, 1e22, 1.0, 1e300 * 1e10, -(1e300 * 1e10)]
1e300 * 1e10
(1e300 * 1e10) - (1e300 * 1e10)
[1e300 * 1e10, 1.5]|tojson
100000000000000000000 + 1
2 ** 64
2 ** 100
2 ** -2
2 ** 0.5
(-8) ** 2
-2 ** 2
0 ** 0
1_000 + 0x1F + 0b11 + 0o17
7 // 2 ~ ' ' ~ -7 // 2 ~ ' ' ~ 7 // -2 ~ ' ' ~ -7 // -2
7 % 3 ~ ' ' ~ -7 % 3 ~ ' ' ~ 7 % -3 ~ ' ' ~ -7.5 % 2 ~ ' ' ~ 7.5 % -2
7.5 // 2 ~ ' ' ~ -7.5 // 2 ~ ' ' ~ 1e16 // 3
5 / 2 ~ ' ' ~ 4 / 2 ~ ' ' ~ -1 / 3
true + true ~ ' ' ~ true * 3 ~ ' ' ~ -true
1 == true ~ 1.0 == 1
3 * 1.0
1 / 0
1 // 0
1 % 0
1.5 / 0
0.1 * 3
1e15 + 0.3
(1).real
3 | round
2.5 | round
3.5 | round
-2.5 | round
2.675 | round(2)
1234.5678 | round(2)
42.55 | round(1, 'floor')
42.55 | round(1, 'ceil')
42.4 | round(method='ceil')
-0.4 | round(method='ceil')
42 | round(method='floor')
42.55 | round | int
'42.9' | int
' 42 ' | int
'4_2' | int
'_42' | int
'0x1f' | int(base=16)
'x' | int(7)
'x' | int(default=7)
none | int(3)
[] | int
'1e3' | int
'inf' | int
'nan' | float
'inf' | float
' 1.5e3 ' | float
'1_0.5' | float
'x' | float(2.5)
-5 | abs
-5.5 | abs
-3 | abs ~ 1
1 if messages | length > 2 else 2
# Texts as Python writes them.
["it's"]
['say "hi"']
['both \' and "']
['\\', '\n', '\t', '\r', '\x00', '\x7f', '\x1b']
['é', 'ß', '世界', '😀', '\u200b', '\u00a0', '\u2028', '\ufeff', 'e\u0301']
{'k': 'v', 1: 2, none: true, 1.5: 'f', (1, 2): 't'}
{'a': {'b': {'c': []}}}
[(), (1,), (1, 2), [[]], {}]
[none, true, false, missing]
(missing,)
[1, 2.0, '3']
'a' 'b' "c"
'\a\b\f\v\x41\u00e9\U0001f600\101\7\q\ '
"\"\'"
'\u00e'
'{% raw %}'
'}}'
# Texts put together.
'a' + 'b'
'a' + 1
'a' ~ 1 ~ none ~ true ~ 1.5 ~ [1] ~ missing
'ab' * 3
3 * 'ab'
'ab' * -1
'ab' * 0
'ab' * true
[1, 2] * 2
(1,) * 3
'a' * 'b'
'a' < 'b' < 'c'
1 < 2 < 3 < 3
1 < 2 > 1 == 1
'a' in 'abc' in ['abc']
not 'a' in 'abc'
'a' not in 'abc'
not true and false
not (true and false)
1 or 0 and none
none or ''
'' or none
[] and 1
1 and 2 or 3
1 if false
(1 if false) is defined
1 if true else 2 if true else 3
1 if false else 2 if false else 3
'x' if not missing else 'y'
missing.x
missing['x']
missing + 1
missing == missing
missing == none
missing is none
-missing
missing()
missing | length
missing | list
missing | join
missing | upper
missing | int
missing ~ 'x'
missing in [1]
1 in missing
missing < 1
'abc'[0] ~ 'abc'[-1] ~ 'abc'[5] ~ 'abc'['x']
'abc'[1:] ~ '|' ~ 'abc'[:-1] ~ '|' ~ 'abc'[::-1] ~ '|' ~ 'abcdef'[4:1:-1] ~ '|' ~ 'abcdef'[::2] ~ '|' ~ 'abcdef'[-2:]
'abcdef'[10:] ~ '|' ~ 'abcdef'[-10:2] ~ '|' ~ 'abcdef'[:10] ~ '|' ~ 'abcdef'[5:-10:-2]
[1, 2, 3, 4][1:3]
[1, 2, 3, 4][::-1]
[1, 2, 3, 4][-3::2]
[1, 2, 3, 4][::-2]
[1, 2, 3][::0]
(1, 2, 3)[1:]
(1, 2, 3)[::-1]
'😀é世'[1] ~ '😀é世'[::-1] ~ '😀é世' | length
[1, 2][1.0]
[1, 2]['0']
[1, 2][true]
[1, 2].0
{'a': 1}.a ~ {'a': 1}['a'] ~ {'a': 1}['b'] ~ {'a': 1}.b
{1: 'x'}[1] ~ {1: 'x'}[1.0] ~ {1: 'x'}[true]
{'a': 1}[['a']]
{'a': 1}[1:]
messages[1:][0].content
messages[-1].role
messages[0:1]
messages[::-1][0]['name']
messages[5]
messages[0].nope.deeper
range(5)[2]
range(3)[-1]
range(0, 10, 3) | list
range(5, 0, -2) | list
range(0) | list
range(3)
range(1, 3)
range(1, 10, 2)
range(100001) | length
range(3) == range(0, 3)
2 in range(3)
# Methods of texts.
'a,b,c'.split(',')
'a,b,c'.split(',', 1)
'a,b,c'.split(',', maxsplit=1)
'a,b,c'.split(sep=',')
'a,b,c'.split(',', 0)
'a,b,c'.split(',', -1)
' a  b c '.split()
' a  b c '.split(none, 1)
' a  b c '.split(maxsplit=1)
'a\x1cb\u00a0c\u200bd'.split()
''.split()
''.split(',')
'a,b'.split('')
'a--b--c'.split('--')
'abc'.split('abc')
'a,b,c'.rsplit(',', 1)
' a b  c '.rsplit(none, 1)
' a b  c '.rsplit()
'a,b,c'.rsplit(',')
'a,b,c'.rsplit(',', maxsplit=1)[0]
'a\nb\r\nc\rd\x0be\x0cf\x85g\u2028h'.splitlines()
'a\n\nb\n'.splitlines()
'a\n\nb\r\n'.splitlines(true)
'a\nb'.splitlines(keepends=true)
''.splitlines()
' \t\n a \x1f'.strip() ~ '|'
'xxaxbxx'.strip('x') ~ 'xyax'.lstrip('xy') ~ 'axyx'.rstrip('yx')
'\u200ba\u200b'.strip() | length
' a '.lstrip() ~ '|' ~ ' a '.rstrip() ~ '|'
' a '.strip(none) ~ '|'
'a'.strip(1)
'hello world'.title() ~ 'HELLO wORLD'.title() ~ "it's ok".title() ~ 'a1b c-d_e'.title()
'hELLO wORLD'.capitalize() ~ 'éA'.capitalize() ~ ''.capitalize() ~ '1aB'.capitalize()
'ß'.upper() ~ 'ß'.capitalize() ~ 'İ'.lower() ~ 'ΑΣ'.lower() ~ 'ΣΑ'.lower()
'ﬁx'.capitalize()
'ǆ'.title()
'ﬁ'.upper()
'Straße'.casefold()
'aBc'.swapcase()
'aXbX'.replace('X', '-') ~ 'aXbX'.replace('X', '-', 1) ~ 'abc'.replace('', '-') ~ 'abc'.replace('b', '')
'aaa'.replace('a', 'b', -1) ~ 'aaa'.replace('a', 'b', 0)
'aaa'.replace('a', 'b', count=1)
'abc'.startswith('ab') ~ 'abc'.startswith(('x', 'a')) ~ 'abc'.startswith('b', 1) ~ 'abc'.startswith('') ~ 'abc'.startswith(())
'abc'.endswith('bc') ~ 'abc'.endswith(('x', 'c')) ~ 'abc'.endswith('b', 0, 2)
'abc'.startswith(['a'])
'abc'.startswith(1)
'abcabc'.find('b') ~ 'abcabc'.find('b', 2) ~ 'abcabc'.find('z') ~ 'abcabc'.rfind('b') ~ 'abcabc'.find('b', 2, 4) ~ 'é😀x'.find('x')
'abcabc'.index('c') ~ 'abcabc'.rindex('a')
'abc'.index('z')
'abab'.count('ab') ~ 'aaaa'.count('aa') ~ 'abc'.count('') ~ 'abab'.count('a', 1)
'-'.join(['a', 'b']) ~ ''.join([]) ~ ', '.join(('x', 'y')) ~ '-'.join('abc') ~ '-'.join({'k': 1, 'l': 2})
'-'.join([1, 2])
'-'.join(1)
'a=b=c'.partition('=')
'abc'.partition('=')
'a=b=c'.rpartition('=')
'abc'.rpartition('=')
'abc'.partition('')
'abc'.removeprefix('ab') ~ 'abc'.removesuffix('bc') ~ 'abc'.removeprefix('x') ~ 'abc'.removesuffix('')
'7'.zfill(3) ~ '-7'.zfill(4) ~ '+7'.zfill(4) ~ '7'.zfill(0)
'a'.center(4, '*') ~ 'a'.center(5, '*') ~ 'ab'.center(5, '*') ~ 'a'.ljust(3, '.') ~ 'a'.rjust(3, '.') ~ 'a'.center(0)
'a'.ljust(3, '..')
'a\tb'.expandtabs() ~ '|' ~ 'a\tb'.expandtabs(4) ~ '|' ~ 'a\tb'.expandtabs(tabsize=2) ~ '|' ~ '\t'.expandtabs(0)
['Ab Cd'.istitle(), 'ab'.istitle(), ''.istitle(), 'A1b'.istitle()]
['a_1'.isidentifier(), '1a'.isidentifier(), ''.isidentifier(), 'é'.isidentifier()]
['12'.isdigit(), ''.isdigit(), '1a'.isdigit(), '12'.isnumeric(), '12'.isdecimal(), '-1'.isdigit()]
['²'.isdigit(), 'Ⅷ'.isnumeric()]
['ab'.isalpha(), 'é世'.isalpha(), 'a1'.isalpha(), 'a1'.isalnum(), ''.isalnum(), 'a b'.isalnum()]
[' \t'.isspace(), ''.isspace(), '\x1c'.isspace(), '\u200b'.isspace()]
['AB'.isupper(), 'A1'.isupper(), '1'.isupper(), 'ab'.islower(), 'aB'.islower(), 'ß'.islower(), '中'.islower()]
['a'.isascii(), 'é'.isascii(), ''.isascii(), 'a\n'.isprintable(), 'é'.isprintable(), ''.isprintable()]
'abc'.encode()
'abc'.translate({97: 'x'})
'abc'.nope()
'abc'.upper
'abc'.upper()[0]
'abc'.format
'{} {}'.format(1, 'b') ~ '{1} {0}'.format(1, 2) ~ '{a} {b}'.format(a=1, b=[2])
'{0.role} {0[content]} {1[0]}'.format(messages[0], [5])
'{!r} {!s}'.format('x', 'y')
'{{}} {}'.format(1)
'{'.format(1)
'{} {}'.format(1)
'{} {0}'.format(1)
'{x}'.format(1)
'{:5}|{:<5}|{:>5}|{:^5}|{:*^5}'.format('a', 'b', 'c', 'd', 'e')
'{:5}|{:<5}|{:05}|{:+}|{: }|{:,}|{:_}'.format(1, 2, 3, 4, 5, 1234567, 1234567)
'{:.2f}|{:8.3f}|{:08.2f}|{:e}|{:.3g}|{:g}|{:%}|{:.1%}'.format(2.5, 3.14159, -2.5, 12345.678, 0.00012345, 1e10, 0.25, 0.123)
'{:x}|{:X}|{:o}|{:b}|{:#x}|{:d}'.format(255, 255, 8, 5, 255, 7)
'{:.2}|{:.3s}'.format('abcdef', 'abcdef')
'{:d}'.format(1.5)
'{:s}'.format(1)
'{:.3}'.format(2.34567)
'{:>{}}'.format('a', 5)
'{:,.2f}'.format(1234567.891)
'{:5}'.format(true)
'{:5}'.format(none)
'{}'.format(none)
'{}{}{}'.format(1.0, 1e20, true)
'%s has %d of %.2f' % ('a', 3, 2.5)
'%5s|%-5s|%05d|%+d|% d|%x|%X|%o|%e|%g|%i|%u|%%' % ('b', 'c', 42, 1, 2, 255, 255, 8, 12345.678, 0.0001, 7, 8)
'%s' % 'x' ~ '%s' % 5 ~ '%s' % none ~ '%s' % [1, 'a'] ~ '%r' % 'x'
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%s' % {'a': 1}
'%(a)s %(b)05.1f' % {'a': 'x', 'b': 2.25}
'%d' % 'x'
'%d' % 2.9
'%.3s|%5.1s|' % ('abcdef', 'xyz')
'%c' % 'x'
'no fields' % []
'no fields' % 1
'%s' % missing
'%.2f%%' % 12.345
'%5.1f|%-8.2f|%08.3f' % (1.25, 2.5, -3.14159)
'%G %E' % (1e-10, 1.5)
'%*d' % (5, 3)
'%s, %s!' | format('a', 'b')
'%(x)s' | format(x=1)
'%s' | format(1, x=2)
'%s'|format(missing)
# Methods of lists and dictionaries.
{'a': 1}.get('a') ~ {'a': 1}.get('b') ~ {'a': 1}.get('b', 2) ~ {'a': none}.get('a', 3)
{'a': 1}.get(['x'])
{'a': 1}.get('b', default=2)
{'b': 1, 'a': 2}.items()
{'b': 1, 'a': 2}.keys()
{'b': 1, 'a': 2}.values()
{'b': 1}.items() | list
{}.items()
{'b': 1, 'a': 2}.items() | sort
{'b': 1}.keys()[0]
'b' in {'b': 1}.keys() ~ 1 in {'b': 1}.values() ~ ('b', 1) in {'b': 1}.items()
{'a': 1}.items() | length
{'a': 1}.update({'b': 2})
{'a': 1}.pop('a')
{'a': 1}.setdefault('b', 2)
{'a': 1}.copy()
[1].append(2)
[1].pop()
[1, 2, 1].count(1) ~ [1, 2].index(2) ~ (1, 2).index(1) ~ (1, 1).count(1)
[1, 2].index(3)
[1, 2, 1].index(1, 1)
[1].copy()
[3, 1].sort()
[1].append is defined
{'a': 1}.update is defined
'a'.upper is defined ~ 'a'.nope is defined ~ {}.items is defined ~ {}.nope is defined ~ [].index is defined
messages[0].items is defined ~ messages[0].content.strip is defined ~ messages[0].strip is defined
messages[0].keys is callable ~ messages[0].role is callable
{'items': 1}.items is callable ~ {'items': 1}['items'] ~ {'items': 1}.get('items')
{'a': 1}['items'] is defined
{'items': 5}.items()
{'a': 1}.a.b
{'a': 1} == {'a': 1.0} ~ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} ~ [1] == (1,) ~ {} == []
dict(a=1, b='x')
dict({'a': 1}, b=2)
dict([('a', 1), ['b', 2]])
dict(**{'a': 1})
dict()
dict.fromkeys(['a'])
dict(a=1).a
{'a': 1, 'a': 2}
{1: 'a', true: 'b', 1.0: 'c'}
{[]: 1}
namespace(a=1).a
namespace(a=1)
namespace(a=1).b is defined
namespace({'a': 1}, b=2).b
namespace(_a=1)
[namespace(a=1)]
# Filters of texts.
'a b'|title ~ 'a-b_c (d)'|title ~ "it's"|title ~ 'ABC dEF'|title ~ 'ß a'|title
'  x '|trim ~ '|' ~ 'xxaxx'|trim('x') ~ 'xxaxx'|trim(chars='x')
'a-b-c'|replace('-', '+') ~ 'a-b-c'|replace('-', '+', 1) ~ 'a-b-c'|replace('-', '+', count=1) ~ 5|replace(5, 6)
'a'|center(5) ~ '|' ~ 'a'|center(width=4) ~ '|'
'a\n\nb'|indent
'a\n\nb'|indent(2, true)
'a\n\nb'|indent(2, first=true, blank=true)
'a\nb'|indent('> ')
'a\nb\n'|indent(width=1)
''|indent(2, true)
5|indent
'one two three four five'|truncate(12)
'one two three four five'|truncate(12, true)
'one two three four five'|truncate(12, false, '!')
'one two three'|truncate(9, leeway=0)
'one two three'|truncate(length=9, killwords=true, end='', leeway=0)
'abcdefghijklmnop'|truncate(5)
'abc'|truncate(2)
'one two-three four_five 6'|wordcount ~ ''|wordcount ~ 'é 世界'|wordcount
'<b>x</b>  y <!-- c --> z'|striptags
'a &amp; b'|striptags
'a b/c?d=é&f'|urlencode
{'a': 'x y', 'b': 1}|urlencode
[('a', '/')]|urlencode
'<a href="x">\'&\''|e
['<'|e]
'<'|e ~ '<'
('<'|e) + '<'
'<' + ('>'|safe)
('a'|safe).upper() ~ ('a'|safe)[0] ~ ('a'|safe) * 2
['a'|safe, ('b'|safe).strip(), ('c d'|safe).split()]
('<'|safe)|e
('<'|e)|forceescape
('x'|safe)|replace('x', '<')
['x', '<'|e]|join('<')
('%s'|safe) % '<'
('x'|safe).join(['<'])
('{}'|safe).format('<')
'x'|safe|string is escaped ~ 'x'|string is escaped
('x'|safe)|upper is escaped ~ ('x'|safe)|trim is escaped ~ ('x'|safe)|title is escaped
('x'|safe)|tojson ~ (('x'|safe)|tojson is escaped)
'x'|safe == 'x'
['x'|safe] == ['x']
'abc'|first ~ 'abc'|last ~ ''|first ~ 'abc'|list|string ~ 'abc'|reverse ~ 'cab'|sort|join
'aB'|upper ~ 'aB'|lower ~ 'aB cD'|capitalize
1|upper ~ none|upper ~ true|lower ~ [1]|upper
'a,b'|split(',')
'a'|string ~ 1|string ~ none|string ~ 1e20|string
# Filters of lists.
[3, 1, 2]|sort ~ [3, 1, 2]|sort(reverse=true) ~ ['b', 'A', 'c']|sort ~ ['b', 'A', 'c']|sort(case_sensitive=true) ~ ['b', 'A', 'c']|sort(true, true)
[{'a': 2, 'b': 1}, {'a': 1, 'b': 2}, {'a': 1, 'b': 1}]|sort(attribute='a,b')
[{'a': {'b': 2}}, {'a': {'b': 1}}]|sort(attribute='a.b')
[[1, 2], [0, 3]]|sort(attribute=1)
[1, 'a']|sort
[1, none]|sort
[{'a': 1}, {'a': 0}]|sort
[1, 2.5, true]|sort
[(2, 'a'), (1, 'b')]|sort
[1, 2, 1, 'a', 'A']|unique|list ~ ['a', 'A']|unique(true)|list
[{'a': 1, 'b': 1}, {'a': 1, 'b': 2}]|unique(attribute='a')|list
[[1], [1]]|unique|list
[1, true, 1.0]|unique|list
[3, 1, 2]|min ~ [3, 1, 2]|max ~ []|max ~ ['b', 'A']|min ~ ['b', 'A']|min(true) ~ 'bca'|max
[{'a': 2}, {'a': 1}]|min(attribute='a')
[1, 'a']|min
[1, 2.5, true]|sum ~ []|sum ~ []|sum(start=5) ~ [{'a': 1}, {'a': 2}]|sum(attribute='a') ~ [{'a': 1}]|sum('a', 10)
['a', 'b']|sum
[[1], [2]]|sum(start=[])
[1, 2, 3]|batch(2)|list ~ [1, 2, 3]|batch(2, 'x')|list ~ [1, 2, 3]|batch(linecount=2, fill_with=0)|list ~ []|batch(2)|list
[1, 2, 3, 4, 5]|slice(3)|list ~ [1, 2, 3, 4, 5]|slice(3, 'x')|list ~ [1]|slice(3)|list
[1, 2, 3]|reverse|list ~ (1, 2)|reverse|list ~ {'a': 1, 'b': 2}|reverse|list ~ range(3)|reverse|list
[1, 2, 3]|reverse
[1, 2, 3]|map('string')
messages|map(attribute='role')|length
messages|map(attribute='role')|list|length
(messages|map(attribute='role')) is iterable ~ (messages|map(attribute='role')) is sequence
'yes' if messages|selectattr('role', 'equalto', 'nobody') else 'no'
'yes' if messages|selectattr('role', 'equalto', 'nobody')|list else 'no'
messages|selectattr('role', 'equalto', 'nobody')|first is defined
messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join('|')
messages|selectattr('role', 'eq', 'user')|last
messages|selectattr('role', 'in', ['user', 'x'])|list|length
messages|selectattr('name')|list|length
messages|selectattr('name', 'defined')|map(attribute='name')|list
messages|rejectattr('role', '==', 'user')|map(attribute='role')|list
messages|rejectattr('name', 'undefined')|list|length
messages|selectattr('tool_calls', 'defined')|map(attribute='tool_calls.0.function.name')|list
messages|selectattr('role', 'nope')|list
messages|selectattr|list
messages|map(attribute='name', default='-')|join(',')
messages|map(attribute='name')|list
messages|map(attribute='name')|join(',')
messages|map('nope')|list
messages|map|list
['a', 'b']|map('upper')|join ~ ['a b', 'c']|map('replace', ' ', '_')|list|string ~ ['a', 'b']|map('center', 3)|join('|')
[' a ']|map('trim')|map('upper')|list
[1, 2]|map('string')|map('int')|sum
[1, none, 0, 'a', '']|select|list ~ [1, none, 0]|reject|list ~ [1, 2, 3]|select('odd')|list ~ [1, 2, 3]|reject('gt', 1)|list ~ ['a', 1]|select('string')|list
[1, 2, 3]|select('divisibleby', 2)|list ~ [1, 2, 3]|select('in', [1, 5])|list
[['a', 1], ['b', 2]]|map('first')|list ~ [['a', 1], ['b', 2]]|map(attribute=1)|list ~ [[1, 2]]|map('join', '-')|list
{'b': 1, 'a': 2}|dictsort ~ {'b': 1, 'a': 2}|dictsort(by='value') ~ {'b': 1, 'A': 2}|dictsort(true) ~ {'b': 1, 'a': 2}|dictsort(reverse=true) ~ {'b': 1, 'a': 2}|dictsort(false, 'value', true)
{'b': 1}|dictsort(by='x')
{1: 'a', 'b': 2}|dictsort
{'b': 1, 'a': 2}|items|list ~ missing|items|list
{'a': 1}|items
[1]|items|list
{'b': 1, 'a': 2}|list ~ {'b': 1}|length ~ {'b': 1, 'a': 2}|first ~ {'b': 1, 'a': 2}|last ~ {'b': 1}|join
messages|groupby('role')
messages|groupby('role')|map(attribute='grouper')|list ~ (messages|groupby('role')|first).list|length
(messages|groupby('role'))[0][0] ~ (messages|groupby('name', default='none'))|map('first')|list
[{'a': 'x'}, {'a': 'X'}, {'a': 'y'}]|groupby('a')|map('first')|list ~ [{'a': 'x'}, {'a': 'X'}]|groupby('a', case_sensitive=true)|map('first')|list
[1, 2, 3]|join(', ') ~ [1, none, 'a']|join ~ [[1], 'b']|join('/') ~ messages|join(',', attribute='role') ~ [1, 2]|join(d='-') ~ [1, 2]|join(0)
1|join
[1, 2]|first ~ [1, 2]|last ~ []|first ~ []|last
range(3)|first ~ range(3)|last
1|first
(messages|map(attribute='role'))|last
'abc'|length ~ [1]|count ~ {}|length ~ range(4)|length
1|length
none|length
none|default('d') ~ ''|default('d') ~ ''|default('d', true) ~ missing|default('d') ~ missing|d ~ none|default('d', boolean=true) ~ 0|d(1, true)
missing|default
messages[0].name|default('anon')
messages[0]|attr('role')
messages[0]|attr('items') is callable
'a'|attr('nope') is defined
missing|attr('x')
# JSON.
{'a': [1, 2.5, none, true, 'é"\\/\n\t\x01\x7f<>&\'']}|tojson
{'a': [1, {'b': []}], 'é': {}}|tojson(indent=2)
{'a': [1]}|tojson(indent=0)
{'a': [1]}|tojson(indent='--')
{'a': [1]}|tojson(indent=none)
{'a': [1]}|tojson(2)
{'a': [1, 2]}|tojson(separators=(',', ':'))
{'a': [1, 2]}|tojson(separators=[' ,', ' : '])
{'a': [1, 2]}|tojson(indent=1, separators=(', ', ': '))
{'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true)
{'b': 1, 1: 2}|tojson(sort_keys=true)
{1: 'a', 1.5: 'b', none: 'c', true: 'd', false: 'e'}|tojson
{(1, 2): 'a'}|tojson
'é😀\u2028\x7f'|tojson(ensure_ascii=true)
'é😀\u2028\x7f'|tojson(ensure_ascii=false)
'é'|tojson(true)
(1, (2,))|tojson
range(3)|tojson
missing|tojson
{'a': 1}.items()|tojson
messages|map(attribute='role')|tojson
messages|tojson
1e16|tojson ~ 1e-5|tojson ~ 1.0|tojson ~ 100|tojson ~ -0.0|tojson
'x'|tojson(nope=1)
''|tojson ~ none|tojson ~ []|tojson ~ {}|tojson
# Tests.
[1 is integer, true is integer, 1.0 is integer, 1.0 is float, 1 is number, true is number, '1' is number]
['a' is string, ('a'|safe) is string, 1 is string, {} is mapping, [] is mapping]
[[] is sequence, {} is sequence, 'a' is sequence, () is sequence, range(2) is sequence, 1 is sequence, missing is sequence, {}.keys() is sequence]
[[] is iterable, 'a' is iterable, none is iterable, 1 is iterable, missing is iterable, {}.items() is iterable, range(2) is iterable]
[none is none, missing is none, missing is defined, none is defined, messages is defined, loop is defined]
[true is true, 1 is true, false is false, 0 is false, true is boolean, 1 is boolean]
[2 is even, 3 is odd, 2.0 is even, 4 is divisibleby 2, 4 is divisibleby(3), -3 is odd]
'a' is even
[1 is sameas 1, true is sameas true, 1 is sameas true, none is sameas(none)]
['a' is in 'abc', 1 is in [1], 1 is not in [2], 'k' is in {'k': 1}]
[1 is eq 1, 1 is ne 2, 2 is gt 1, 2 is ge 2, 1 is lt 2, 1 is le 1, 'a' is equalto 'a', 1 is == 1]
['ABC' is upper, 'abc' is lower, '1' is lower, '' is upper]
['upper' is filter, 'nope' is filter, 'odd' is test, 'nope' is test, 'striptags' is filter, 'xmlattr' is filter]
[range is callable, 'a'.upper is callable, 'a' is callable, messages is callable, raise_exception is callable]
1 is nope
1 is not none and 2 is defined
messages is not string and messages is iterable
'a' is string and 'b' is not string
not 1 is string
1 is number is boolean
# Functions.
strftime_now('%Y-%m-%d')
strftime_now('%d %B %Y, %H:%M')
strftime_now('%A %a %b %j %U %w %p %y %e %-d %-m %I %M %S %D %R %T %F %c %x %X %C %h %n %t %% %Z %z %k %l %P %u')
strftime_now('')
strftime_now('%Q %i %J')
strftime_now('%')
strftime_now(format='%Y')
strftime_now()
strftime_now(1)
raise_exception('x')
raise_exception()
range()
range('a')
range(1.5)
range(1, 2, 0)
nope()
nope(1).x
dict(1)
[].nope
(none).x
none.x is defined
none['x'] is defined
1.x
1 .real
(1.5).is_integer()
messages | string | length
messages[1].tool_calls[0].function.arguments
messages[1].tool_calls[0].function.arguments | tojson
messages[1].tool_calls[0]['function'].name ~ messages[1]['tool_calls'][0].function['arguments'].b[0]
(messages | first).role ~ (messages | last).name ~ (messages | length)
messages | map(attribute='content') | select | join('\n')
{'a': messages[0]}
[messages[0].content, messages[0]]
{**{'a': 1}}
[1, *[2]]
{'a'}
{'a': 1 for x in y}
[x for x in y]
lambda: 1
1 +
a b
1 | 2
(1, 2
'x' | upper | lower | title
'x' | replace('x', 'y') | upper ~ 'z' | upper
1 ~ 2 + 3
1 + 2 ~ 3
2 * 3 ~ 4
-1 ~ 2
- 1 | abs
-'a'
+1
1 - -1
2 - 1 - 1
2 ** 3 ** 2
10 / 5 / 2
1 + 2 * 3 - 4 / 2
(1 + 2) * 3
'a' if 1 else 'b' ~ 'c'
1, 2
[1, 2,]
(1, 2,)
{'a': 1,}
[1][0]
{'a': [1, {'b': 2}]}.a[1].b
'%s' % (1,)
'a' | default('b') + 'c'
loop
self
caller
varargs
true.x
True == true ~ None == none ~ False == false
cycler('a').next()
joiner(', ')
lipsum()
'abc' | random
'abc' | pprint
'abc' | xmlattr
1000 | filesizeformat
'abc' | wordwrap(2)
'abc' | urlize
'İ'.lower() | length
'\U00010000'
'\ud83d'
'\N{BULLET}'
'a\
b'
'tab	inside'
"new
line"
# Numbers in texts and the like.
1.5 ~ 1e100 ~ 1e-100 ~ 123456789.123456789
0.1 + 0.2 ~ ''
1e3 ~ 1E3 ~ 1.5e+3 ~ 1e-3
[1e3, 1.5e+3]
1e5 | int ~ 1e20 | int ~ 1.9 | int ~ -1.9 | int
9007199254740993 * 1.0
9007199254740993 / 1
123456789 * 987654321
99999999999 * 99999999999
9223372036854775807 + 1
18446744073709551616
340282366920938463463374607431768211456
10 ** 20 ~ 10 ** 30
2.0 ** 3 ~ 2 ** 3.0 ~ 4 ** 0.5
1e308 * 10 ~ ''
'nan' | float == 'nan' | float
[('nan' | float), ('-inf' | float)]
'nan'|float|int
'inf'|float|tojson ~ 'nan'|float|tojson
true | int ~ false | float ~ true | string ~ true | tojson
[true, false] | sum ~ [true, 2] | max
none ~ none
{'a': none}.a ~ ''
'' ~ [] ~ {} ~ ()
'a' | length * 2
messages | length - 1
(messages | length) % 2 == 1
messages[(messages | length) - 1].role
messages[0]['role'] in ['user', 'system'] and messages[0].content is string
messages[0].content.split(' ')[0] ~ messages[0].content | upper
messages[0].content.split(' ')[-1].strip().lower().startswith('th')
'abc' in messages[0].content or 'Hi' in messages[0].content
'name' in messages[0] ~ 'name' in messages[2]
messages[0] | items | map('first') | list
messages[0].items() | map('last') | join(';')
messages[0].keys() | list | sort ~ messages[0].values() | join
'</think>' in 'a</think>b' and 'a</think>b'.split('</think>')[-1].lstrip('\n')
('<think>x</think>y'.split('</think>')[0].rstrip('\n').split('<think>')[-1]).lstrip('\n')
'x' * (3 - 1) ~ '=' * 0
(messages | selectattr('role', 'equalto', 'user') | list)[-1].name
(messages | selectattr('role', 'equalto', 'user') | list | length) > 1
[messages[0]] + messages[1:] | length
([messages[0]] + messages[1:]) | length
messages + [{'role': 'x'}] | length
'a' < 'B' ~ 'é' > 'z' ~ '' < 'a' ~ '\uffff' < '😀'
[1, 2] < [1, 3] ~ (1, 'a') < (1, 'b') ~ [] < [0]
1 < 'a'
none < 1
[1] < (1,)
{} < {}
1 == '1' ~ none == false ~ [] == () ~ 'a' != 'b'
1 in [1.0] ~ true in [1] ~ 'a' in ('a',) ~ none in [none] ~ '' in ''
1 in 'a'
1 in 1
1 in none
[1] in [[1], 2]
{} in [{}]
[] in {'a': 1}
'''.strip("\n")


def written():
    """The expressions above; a backslash or a quote at the end of a line goes on in the next one."""
    lines, found = iter(WRITTEN.split("\n")), []
    for line in lines:
        if line.startswith("# "):
            continue
        if line.endswith("\\") or line == '"new':
            line += "\n" + next(lines)
        found.append(line)
    return found


def products():
    """Operators, tests, filters and attributes with a value of each kind."""
    few = [value for value in VALUES if value not in ("-3", "7", "-0.0", "'ab c'", "(1, 'x')", "{'k': [1], 'b': none}", "'<b>'")]
    small = ["none", "true", "2", "2.5", "'a'", "[1]", "(1,)", "{'a': 1}", "missing"]
    yield from (f"{a} {op} {b}" for op in OPERATORS for a, b in itertools.product(small, small))
    yield from (f"{value} is {test}" for test in TESTS for value in few)
    yield from (f"({value})|{name}" for name in FILTERS for value in few)
    yield from (f"({value}).{name} is defined" for name in ATTRIBUTES for value in few)


def by_chance(count, seed):
    chance = random.Random(seed)
    calls = [match for line in written() for match in re.findall(r"[|.][a-z]+(?:\([^()]*\))?", line)]

    def one(depth):
        kind = chance.random()
        if depth == 0 or kind < 0.2:
            return chance.choice(VALUES)
        if kind < 0.45:
            return f"({one(depth - 1)} {chance.choice(OPERATORS)} {one(depth - 1)})"
        if kind < 0.75:
            return f"({one(depth - 1)}){chance.choice(calls)}"
        if kind < 0.85:
            return f"({one(depth - 1)})|{chance.choice(FILTERS)}"
        if kind < 0.9:
            return f"({one(depth - 1)})[{chance.choice(['0', '-1', '1:', '::-1', repr('a'), ':2', '5'])}]"
        if kind < 0.95:
            return f"[{one(depth - 1)}, {one(depth - 1)}]"
        return f"({one(depth - 1)} is {chance.choice(TESTS)})"

    return [one(chance.choice([1, 2, 3])) for _ in range(count)]


def render(expression):
    """The text of an expression; none if it fails, or holds an address in memory."""
    try:
        source = "{{ " + expression + " }}"
        text = utils.render_jinja_template(conversations=[MESSAGES], chat_template=source, bos_token="<s>", eos_token="</s>")[0][0]
    except Exception:  # whatever an expression may raise
        return None
    return {"address": True} if re.search(r" at 0x[0-9a-f]+>|<class |<built-in ", text) else text


def main():
    import templates  # sets the date

    del templates
    if len(sys.argv) > 1:
        out, expressions = Path(sys.argv[1]), by_chance(int(sys.argv[2]), int(sys.argv[3]))
    else:
        out = REPOSITORY / "crates/qft-train/tests/golden/expressions.json"
        expressions = written() + list(products())
    expressions = list(dict.fromkeys(expressions))
    found = [[expression, render(expression)] for expression in expressions]
    found = [[e, t] for e, t in found if not isinstance(t, str) or t.encode("utf-8", "replace").decode() == t]
    golden = {"messages": MESSAGES, "expressions": found}
    out.write_text(json.dumps(golden, ensure_ascii=False, indent=0 if len(sys.argv) == 1 else None).replace("\n[\n", "\n[").replace(",\n", ", ") + "\n")
    print(f"{out}: {len(found)} expressions, {sum(t is None for _, t in found)} of them errors")


if __name__ == "__main__":
    main()
