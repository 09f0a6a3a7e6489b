//! A template as it is run: the parser's syntax tree, checked, with names as numbers.

use super::escapes;
use super::fault::{Fault, Outcome};
use super::names::{Name, Names};
use super::value::Value;
use minijinja::machinery::ast;
use minijinja::machinery::{Span, parse};
use minijinja::syntax::SyntaxConfig;
use std::collections::HashSet;
use std::sync::Arc;

/// A template.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) body: Body,
    pub(super) loops: Vec<For>,
    pub(super) macros: Vec<Macro>,
    pub(super) names: Names,
    /// The variables that are read.
    pub(super) read: HashSet<Name>,
}

/// Statements, each with its line.
pub(super) type Body = Vec<(u32, Statement)>;

#[derive(Debug)]
pub(super) enum Statement {
    /// Text as it is.
    Write(Arc<str>),
    /// The text of a value.
    Emit(Expression),
    /// A loop, by its number.
    For(usize),
    If(Expression, Body, Body),
    With(Vec<(Target, Expression)>, Body),
    Set(Target, Expression),
    /// What is written within becomes a variable, through filters if there are any.
    Capture(Target, Option<Expression>, Body),
    /// What is written within goes through filters.
    Filter(Expression, Body),
    /// A macro, by its number.
    Macro(usize),
    /// A call with the text within as `caller`, which is the macro of this number.
    Call(Call, usize),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) over: Expression,
    pub(super) filter: Option<Expression>,
    pub(super) recursive: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Name,
    pub(super) parameters: Vec<Name>,
    /// Of the last parameters.
    pub(super) defaults: Vec<Expression>,
    pub(super) body: Body,
    /// Whether it reads `caller`, `kwargs` and `varargs` without having parameters of these names.
    pub(super) reads: [bool; 3],
}

/// The names that a macro finds more in than its parameters.
pub(super) const EXTRA: [&str; 3] = ["caller", "kwargs", "varargs"];

/// What is assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Name),
    /// An attribute of a namespace.
    Attribute(Name, Arc<str>),
    Unpack(Vec<Target>),
}

#[derive(Debug)]
pub(super) enum Expression {
    Constant(Value),
    Variable(Name),
    /// The text that filters of a block work on.
    Captured,
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    And(Box<[Expression; 2]>),
    Or(Box<[Expression; 2]>),
    /// A condition, what it is if that is true, and if not.
    If(Box<[Expression; 2]>, Option<Box<Expression>>),
    Operate(Operator, Box<[Expression; 2]>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    Attribute(Box<Expression>, Arc<str>),
    Item(Box<[Expression; 2]>),
    Slice(Box<Expression>, [Option<Box<Expression>>; 3]),
    Call(Box<Call>),
    Filter(Arc<str>, Box<Expression>, Arguments),
    Test(Arc<str>, Box<Expression>, Arguments),
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) callee: Expression,
    pub(super) arguments: Arguments,
}

/// Arguments as they are written.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// Those without a name; true for `*values`.
    pub(super) values: Vec<(bool, Expression)>,
    /// Those with a name; none for `**values`.
    pub(super) named: Vec<(Option<Arc<str>>, Expression)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
    Join,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

impl Tree {
    /// Parses a template.
    ///
    /// Errors: it is not valid, or has a statement that is not supported.
    pub(super) fn parse(source: &str) -> Outcome<Self> {
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.map_err(|error| Fault::new(error.to_string()))?;
        let parsed = parse(source, "chat template", syntax);
        let parsed = parsed.map_err(|error| Fault::new(error.to_string()))?;
        let body = Vec::new();
        let tree = Self {
            body,
            loops: Vec::new(),
            macros: Vec::new(),
            names: Names::default(),
            read: HashSet::new(),
        };
        let mut builder = Builder { source, tree, loads: Vec::new() };
        if let ast::Stmt::Template(template) = &parsed {
            builder.tree.body = builder.body(&template.children)?;
        }
        Ok(builder.tree)
    }
}

struct Builder<'a> {
    source: &'a str,
    tree: Tree,
    /// What the macros around read.
    loads: Vec<HashSet<Name>>,
}

impl Builder<'_> {
    fn body(&mut self, statements: &[ast::Stmt<'_>]) -> Outcome<Body> {
        statements.iter().map(|statement| self.statement(statement)).collect()
    }

    fn statement(&mut self, statement: &ast::Stmt<'_>) -> Outcome<(u32, Statement)> {
        use ast::Stmt;
        let at = |span: Span| u32::from(span.start_line);
        let unsupported = |what: &str, span: Span| {
            Err(Fault::unsupported(format!("{{% {what} %}}")).at(at(span)))
        };
        Ok(match statement {
            Stmt::Template(inner) => return unsupported("template", inner.span()),
            Stmt::EmitRaw(raw) => (at(raw.span()), Statement::Write(raw.raw.into())),
            Stmt::EmitExpr(emit) => {
                let line = at(emit.span());
                (line, Statement::Emit(self.expression(&emit.expr).map_err(|e| e.at(line))?))
            }
            Stmt::ForLoop(inner) => (at(inner.span()), self.for_loop(inner)?),
            Stmt::IfCond(inner) => {
                let condition = self.expression(&inner.expr)?;
                let (yes, no) = (self.body(&inner.true_body)?, self.body(&inner.false_body)?);
                (at(inner.span()), Statement::If(condition, yes, no))
            }
            Stmt::WithBlock(inner) => {
                let assignment = |(target, value): &(ast::Expr<'_>, ast::Expr<'_>)| {
                    Ok((self.target(target)?, self.expression(value)?))
                };
                let assignments =
                    inner.assignments.iter().map(assignment).collect::<Outcome<_>>()?;
                (at(inner.span()), Statement::With(assignments, self.body(&inner.body)?))
            }
            Stmt::Set(inner) => {
                let value = self.expression(&inner.expr)?;
                (at(inner.span()), Statement::Set(self.target(&inner.target)?, value))
            }
            Stmt::SetBlock(inner) => {
                let target = self.target(&inner.target)?;
                let filter = inner.filter.as_ref().map(|f| self.expression(f)).transpose()?;
                (at(inner.span()), Statement::Capture(target, filter, self.body(&inner.body)?))
            }
            Stmt::FilterBlock(inner) => {
                let filter = self.expression(&inner.filter)?;
                (at(inner.span()), Statement::Filter(filter, self.body(&inner.body)?))
            }
            Stmt::Macro(inner) => (at(inner.span()), Statement::Macro(self.macro_of(inner)?)),
            Stmt::CallBlock(inner) => {
                let call = self.call(&inner.call)?;
                (at(inner.span()), Statement::Call(call, self.macro_of(&inner.macro_decl)?))
            }
            Stmt::Continue(inner) => (at(inner.span()), Statement::Continue),
            Stmt::Break(inner) => (at(inner.span()), Statement::Break),
            Stmt::AutoEscape(inner) => return unsupported("autoescape", inner.span()),
            Stmt::Block(inner) => return unsupported("block", inner.span()),
            Stmt::Import(inner) => return unsupported("import", inner.span()),
            Stmt::FromImport(inner) => return unsupported("from", inner.span()),
            Stmt::Extends(inner) => return unsupported("extends", inner.span()),
            Stmt::Include(inner) => return unsupported("include", inner.span()),
            Stmt::Do(inner) => return unsupported("do", inner.span()),
        })
    }

    fn for_loop(&mut self, inner: &ast::ForLoop<'_>) -> Outcome<Statement> {
        let made = For {
            target: self.target(&inner.target)?,
            over: self.expression(&inner.iter)?,
            filter: inner.filter_expr.as_ref().map(|f| self.expression(f)).transpose()?,
            recursive: inner.recursive,
            body: self.body(&inner.body)?,
            otherwise: self.body(&inner.else_body)?,
        };
        self.tree.loops.push(made);
        Ok(Statement::For(self.tree.loops.len() - 1))
    }

    fn macro_of(&mut self, inner: &ast::Macro<'_>) -> Outcome<usize> {
        self.loads.push(HashSet::new());
        let name = self.tree.names.number(inner.name);
        let parameter = |expr: &ast::Expr<'_>| match self.target(expr)? {
            Target::Name(name) => Ok(name),
            _ => Err(Fault::new("a parameter of a macro is a name")),
        };
        let parameters: Vec<Name> = inner.args.iter().map(parameter).collect::<Outcome<_>>()?;
        let defaults = inner.defaults.iter().map(|value| self.expression(value));
        let defaults = defaults.collect::<Outcome<_>>()?;
        let body = self.body(&inner.body)?;
        let loads = self.loads.pop().unwrap_or_default();
        let reads = EXTRA.map(|extra| {
            let known = self.tree.names.known(extra);
            known.is_some_and(|name| loads.contains(&name) && !parameters.contains(&name))
        });
        if let Some(around) = self.loads.last_mut() {
            around.extend(loads);
        }
        self.tree.macros.push(Macro { name, parameters, defaults, body, reads });
        Ok(self.tree.macros.len() - 1)
    }

    fn target(&mut self, expr: &ast::Expr<'_>) -> Outcome<Target> {
        match expr {
            ast::Expr::Var(var) => Ok(Target::Name(self.tree.names.number(var.id))),
            ast::Expr::GetAttr(attribute) => match &attribute.expr {
                ast::Expr::Var(var) => {
                    let name = self.load(var.id);
                    Ok(Target::Attribute(name, attribute.name.into()))
                }
                _ => Err(Fault::new("only attributes of a namespace can be set, as in ns.name")),
            },
            ast::Expr::List(list) => self.targets(&list.items),
            ast::Expr::Tuple(tuple) => self.targets(&tuple.items),
            other => Err(Fault::new(format!("cannot assign to a {}", other.description()))),
        }
    }

    fn targets(&mut self, items: &[ast::Expr<'_>]) -> Outcome<Target> {
        Ok(Target::Unpack(items.iter().map(|item| self.target(item)).collect::<Outcome<_>>()?))
    }

    fn load(&mut self, text: &str) -> Name {
        let name = self.tree.names.number(text);
        self.tree.read.insert(name);
        if let Some(loads) = self.loads.last_mut() {
            loads.insert(name);
        }
        name
    }

    fn expressions(&mut self, items: &[ast::Expr<'_>]) -> Outcome<Vec<Expression>> {
        items.iter().map(|item| self.expression(item)).collect()
    }

    fn boxed(&mut self, expr: &ast::Expr<'_>) -> Outcome<Box<Expression>> {
        Ok(Box::new(self.expression(expr)?))
    }

    fn pair(&mut self, a: &ast::Expr<'_>, b: &ast::Expr<'_>) -> Outcome<Box<[Expression; 2]>> {
        Ok(Box::new([self.expression(a)?, self.expression(b)?]))
    }

    fn expression(&mut self, expr: &ast::Expr<'_>) -> Outcome<Expression> {
        use ast::Expr;
        Ok(match expr {
            Expr::Var(var) => Expression::Variable(self.load(var.id)),
            Expr::Const(constant) => Expression::Constant(self.constant(constant)?),
            Expr::List(list) => Expression::List(self.expressions(&list.items)?),
            Expr::Tuple(tuple) => Expression::Tuple(self.expressions(&tuple.items)?),
            Expr::Map(map) => {
                let (keys, values) = (self.expressions(&map.keys)?, self.expressions(&map.values)?);
                Expression::Dict(keys.into_iter().zip(values).collect())
            }
            Expr::UnaryOp(unary) => match unary.op {
                ast::UnaryOpKind::Not => Expression::Not(self.boxed(&unary.expr)?),
                ast::UnaryOpKind::Neg => Expression::Negate(self.boxed(&unary.expr)?),
            },
            Expr::BinOp(binary) => self.binary(binary)?,
            Expr::Compare(compare) => {
                let first = self.boxed(&compare.expr)?;
                let rest = compare.ops.iter();
                let rest = rest.map(|op| Ok((comparison(op.op), self.expression(&op.expr)?)));
                Expression::Compare(first, rest.collect::<Outcome<_>>()?)
            }
            Expr::IfExpr(inner) => Expression::If(
                self.pair(&inner.test_expr, &inner.true_expr)?,
                inner.false_expr.as_ref().map(|no| self.boxed(no)).transpose()?,
            ),
            Expr::GetAttr(inner) => {
                Expression::Attribute(self.boxed(&inner.expr)?, inner.name.into())
            }
            Expr::GetItem(inner) => {
                Expression::Item(self.pair(&inner.expr, &inner.subscript_expr)?)
            }
            Expr::Slice(inner) => {
                let value = self.boxed(&inner.expr)?;
                let mut part = |part: &Option<ast::Expr<'_>>| {
                    part.as_ref().map(|part| self.boxed(part)).transpose()
                };
                Expression::Slice(
                    value,
                    [part(&inner.start)?, part(&inner.stop)?, part(&inner.step)?],
                )
            }
            Expr::Call(call) => Expression::Call(Box::new(self.call(call)?)),
            Expr::Filter(filter) => {
                let input = match &filter.expr {
                    Some(input) => self.boxed(input)?,
                    None => Box::new(Expression::Captured),
                };
                Expression::Filter(filter.name.into(), input, self.arguments(&filter.args)?)
            }
            Expr::Test(test) => Expression::Test(
                test.name.into(),
                self.boxed(&test.expr)?,
                self.arguments(&test.args)?,
            ),
        })
    }

    fn binary(&mut self, binary: &ast::BinOp<'_>) -> Outcome<Expression> {
        use ast::BinOpKind as Kind;
        let pair = self.pair(&binary.left, &binary.right)?;
        let compare = |how: Comparison, pair: Box<[Expression; 2]>| {
            let [a, b] = *pair;
            Expression::Compare(Box::new(a), vec![(how, b)])
        };
        Ok(match binary.op {
            Kind::ScAnd => Expression::And(pair),
            Kind::ScOr => Expression::Or(pair),
            Kind::Eq => compare(Comparison::Equal, pair),
            Kind::Ne => compare(Comparison::NotEqual, pair),
            Kind::Lt => compare(Comparison::Less, pair),
            Kind::Lte => compare(Comparison::LessEqual, pair),
            Kind::Gt => compare(Comparison::Greater, pair),
            Kind::Gte => compare(Comparison::GreaterEqual, pair),
            Kind::In => compare(Comparison::In, pair),
            Kind::Add => Expression::Operate(Operator::Add, pair),
            Kind::Sub => Expression::Operate(Operator::Subtract, pair),
            Kind::Mul => Expression::Operate(Operator::Multiply, pair),
            Kind::Div => Expression::Operate(Operator::Divide, pair),
            Kind::FloorDiv => Expression::Operate(Operator::FloorDivide, pair),
            Kind::Rem => Expression::Operate(Operator::Remainder, pair),
            Kind::Pow => Expression::Operate(Operator::Power, pair),
            Kind::Concat => Expression::Operate(Operator::Join, pair),
        })
    }

    fn call(&mut self, call: &ast::Call<'_>) -> Outcome<Call> {
        let callee = self.expression(&call.expr)?;
        Ok(Call { callee, arguments: self.arguments(&call.args)? })
    }

    fn arguments(&mut self, args: &[ast::CallArg<'_>]) -> Outcome<Arguments> {
        use ast::CallArg;
        let mut arguments = Arguments::default();
        for arg in args {
            match arg {
                CallArg::Pos(value) => arguments.values.push((false, self.expression(value)?)),
                CallArg::PosSplat(value) => arguments.values.push((true, self.expression(value)?)),
                CallArg::Kwarg(name, value) => {
                    let name: Arc<str> = (*name).into();
                    if arguments.named.iter().any(|(other, _)| other.as_ref() == Some(&name)) {
                        return Err(Fault::new(format!("the argument {name} is given twice")));
                    }
                    arguments.named.push((Some(name), self.expression(value)?));
                }
                CallArg::KwargSplat(value) => {
                    arguments.named.push((None, self.expression(value)?));
                }
            }
        }
        Ok(arguments)
    }

    /// A constant. Texts are read from the source again: the parser knows fewer escapes than Python.
    fn constant(&self, constant: &ast::Spanned<ast::Const>) -> Outcome<Value> {
        let value = &constant.value;
        if value.is_none() {
            return Ok(Value::None);
        }
        if let Some(text) = value.as_str() {
            let span = constant.span();
            let source = self.source.get(span.start_offset as usize..span.end_offset as usize);
            let source = source.filter(|source| source.contains('\\'));
            return Ok(Value::text(match source {
                Some(source) => escapes::literals(source)?,
                None => text.to_string(),
            }));
        }
        if !value.is_number() {
            return Ok(Value::Bool(value.is_true()));
        }
        let number = match i128::try_from(value.clone()) {
            Ok(number) if value.is_integer() => Value::Int(number),
            _ if value.is_integer() => return Err(Fault::unsupported("so large an integer")),
            _ => Value::Float(f64::try_from(value.clone()).unwrap_or(f64::NAN)),
        };
        Ok(number)
    }
}

fn comparison(kind: ast::CompareOpKind) -> Comparison {
    use ast::CompareOpKind as Kind;
    match kind {
        Kind::Eq => Comparison::Equal,
        Kind::Ne => Comparison::NotEqual,
        Kind::Lt => Comparison::Less,
        Kind::Lte => Comparison::LessEqual,
        Kind::Gt => Comparison::Greater,
        Kind::Gte => Comparison::GreaterEqual,
        Kind::In => Comparison::In,
        Kind::NotIn => Comparison::NotIn,
    }
}
