//! Lua's expressions: source -> tree.

use super::ParseError;

#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Vec<u8>),
    /// `headers`
    Name(String),
    /// `of[key]`, `of.key`
    Index {
        of: Box<Self>,
        key: Box<Self>,
    },
    Call {
        function: Box<Self>,
        arguments: Vec<Self>,
    },
    /// `of:name(arguments)`
    Method {
        of: Box<Self>,
        name: String,
        arguments: Vec<Self>,
    },
    /// `{ item, name = item, [key] = item }`: the items in order, with the keys of those that have one.
    Table(Vec<(Option<Self>, Self)>),
    Unary(Unary, Box<Self>),
    Binary(Binary, Box<Self>, Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    Not,
    Minus,
    Length,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binary {
    Or,
    And,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    Concatenate,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

impl Binary {
    /// How tightly it binds to the left and to the right: higher is tighter.
    fn power(self) -> (u8, u8) {
        match self {
            Self::Or => (1, 2),
            Self::And => (3, 4),
            Self::Less | Self::LessEqual | Self::Greater | Self::GreaterEqual | Self::Equal | Self::NotEqual => (5, 6),
            Self::Concatenate => (8, 7),
            Self::Add | Self::Subtract => (9, 10),
            Self::Multiply | Self::Divide | Self::Modulo => (11, 12),
            Self::Power => (16, 15),
        }
    }
}

/// How tightly `not`, `-` and `#` bind: looser than `^`, tighter than the rest.
const UNARY_POWER: u8 = 13;
/// Expressions nest this deep at most.
const DEPTH: usize = 64;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Text(Vec<u8>),
    Name(String),
    /// An operator or a sign of punctuation.
    Sign(&'static str),
}

/// Longer ones before their beginnings.
const SIGNS: &[&str] =
    &["..", "==", "~=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "^", "#", "(", ")", "[", "]", ".", ",", ":", "{", "}", "=", ";"];

impl Expression {
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        let mut parser = Parser { tokens: tokens(source)?, at: 0, depth: 0 };
        let expression = parser.expression(0)?;
        match parser.peek() {
            None => Ok(expression),
            Some(_) => Err(parser.unexpected()),
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(s)) if *s == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> ParseError {
        let near = match self.peek() {
            None => "<eof>".to_owned(),
            Some(Token::Number(n)) => n.to_string(),
            Some(Token::Text(text)) => String::from_utf8_lossy(text).into_owned(),
            Some(Token::Name(name)) => name.clone(),
            Some(Token::Sign(sign)) => (*sign).to_owned(),
        };
        ParseError(format!("unexpected symbol near '{near}'"))
    }

    /// An expression whose operators bind at least as tightly as `least`.
    fn expression(&mut self, least: u8) -> Result<Expression, ParseError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(ParseError("chunk has too many syntax levels".to_owned()));
        }
        let mut left = match self.unary() {
            Some(operator) => {
                self.at += 1;
                Expression::Unary(operator, Box::new(self.expression(UNARY_POWER)?))
            }
            None => self.suffixed()?,
        };
        // A chain of operators makes the tree as deep as it is long.
        let mut length = 0;
        while let Some(operator) = self.binary() {
            let (to_left, to_right) = operator.power();
            if to_left < least {
                break;
            }
            length += 1;
            if length > DEPTH {
                return Err(ParseError("chunk has too many syntax levels".to_owned()));
            }
            self.at += 1;
            let right = self.expression(to_right)?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&self) -> Option<Unary> {
        match self.peek()? {
            Token::Name(name) if name == "not" => Some(Unary::Not),
            Token::Sign("-") => Some(Unary::Minus),
            Token::Sign("#") => Some(Unary::Length),
            _ => None,
        }
    }

    fn binary(&self) -> Option<Binary> {
        Some(match self.peek()? {
            Token::Name(name) if name == "or" => Binary::Or,
            Token::Name(name) if name == "and" => Binary::And,
            Token::Sign("<") => Binary::Less,
            Token::Sign("<=") => Binary::LessEqual,
            Token::Sign(">") => Binary::Greater,
            Token::Sign(">=") => Binary::GreaterEqual,
            Token::Sign("==") => Binary::Equal,
            Token::Sign("~=") => Binary::NotEqual,
            Token::Sign("..") => Binary::Concatenate,
            Token::Sign("+") => Binary::Add,
            Token::Sign("-") => Binary::Subtract,
            Token::Sign("*") => Binary::Multiply,
            Token::Sign("/") => Binary::Divide,
            Token::Sign("%") => Binary::Modulo,
            Token::Sign("^") => Binary::Power,
            _ => return None,
        })
    }

    /// A primary expression with what follows it: `.name`, `[key]`, `(arguments)`, `:name(arguments)`.
    fn suffixed(&mut self) -> Result<Expression, ParseError> {
        let (mut of, callable) = self.primary()?;
        if !callable {
            return Ok(of);
        }
        let mut length = 0;
        loop {
            length += 1;
            if length > DEPTH {
                return Err(ParseError("chunk has too many syntax levels".to_owned()));
            }
            if self.take(".") {
                let key = Expression::Text(self.name()?.into_bytes());
                of = Expression::Index { of: Box::new(of), key: Box::new(key) };
            } else if self.take("[") {
                let key = self.expression(0)?;
                self.expect("]")?;
                of = Expression::Index { of: Box::new(of), key: Box::new(key) };
            } else if self.take(":") {
                let name = self.name()?;
                let arguments = self.arguments()?;
                of = Expression::Method { of: Box::new(of), name, arguments };
            } else if self.is("(") || matches!(self.peek(), Some(Token::Text(_))) {
                let arguments = self.arguments()?;
                of = Expression::Call { function: Box::new(of), arguments };
            } else {
                break;
            }
        }
        Ok(of)
    }

    /// A literal, a name or something in parentheses, and whether Lua lets it be indexed and called.
    fn primary(&mut self) -> Result<(Expression, bool), ParseError> {
        let token = self.peek().cloned();
        let literal = match token {
            Some(Token::Number(n)) => Expression::Number(n),
            Some(Token::Text(text)) => Expression::Text(text),
            Some(Token::Name(name)) => match name.as_str() {
                "nil" => Expression::Nil,
                "true" => Expression::Bool(true),
                "false" => Expression::Bool(false),
                _ => return Ok((Expression::Name(self.name()?), true)),
            },
            Some(Token::Sign("(")) => {
                self.at += 1;
                let inside = self.expression(0)?;
                self.expect(")")?;
                return Ok((inside, true));
            }
            Some(Token::Sign("{")) => return Ok((self.table()?, false)),
            Some(Token::Sign(_)) | None => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok((literal, false))
    }

    fn table(&mut self) -> Result<Expression, ParseError> {
        self.expect("{")?;
        let mut items = Vec::new();
        while !self.take("}") {
            let named = matches!(self.peek(), Some(Token::Name(_))) && self.tokens.get(self.at + 1) == Some(&Token::Sign("="));
            let key = if named {
                Some(Expression::Text(self.name()?.into_bytes()))
            } else if self.take("[") {
                let key = self.expression(0)?;
                self.expect("]")?;
                Some(key)
            } else {
                None
            };
            if key.is_some() {
                self.expect("=")?;
            }
            items.push((key, self.expression(0)?));
            if !self.take(",") && !self.take(";") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expression::Table(items))
    }

    fn name(&mut self) -> Result<String, ParseError> {
        const KEYWORDS: &[&str] = &[
            "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not", "or",
            "repeat", "return", "then", "true", "until", "while",
        ];
        match self.peek() {
            Some(Token::Name(name)) if !KEYWORDS.contains(&name.as_str()) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Expression>, ParseError> {
        if let Some(Token::Text(text)) = self.peek() {
            let text = Expression::Text(text.clone());
            self.at += 1;
            return Ok(vec![text]);
        }
        self.expect("(")?;
        let mut arguments = Vec::new();
        if self.take(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression(0)?);
            if self.take(")") {
                return Ok(arguments);
            }
            self.expect(",")?;
        }
    }
}

fn tokens(source: &str) -> Result<Vec<Token>, ParseError> {
    let mut tokens = Vec::new();
    let mut rest = source;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let (token, length) = if first == '"' || first == '\'' {
            quoted(rest)?
        } else if let Some(found) = long_bracket(rest)? {
            found
        } else if digits(rest) || (first == '.' && digits(&rest[1..])) {
            number(rest)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Token::Name(rest[..length].to_owned()), length)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(ParseError(format!("unexpected symbol near '{first}'")));
        };
        tokens.push(token);
        rest = &rest[length..];
    }
}

fn number(source: &str) -> Result<(Token, usize), ParseError> {
    let mut length = 0;
    let bytes = source.as_bytes();
    while length < bytes.len() {
        let sign_of_exponent = matches!(bytes[length], b'+' | b'-') && matches!(bytes[length - 1], b'e' | b'E');
        if !bytes[length].is_ascii_alphanumeric() && bytes[length] != b'.' && !sign_of_exponent {
            break;
        }
        length += 1;
    }
    let text = &source[..length];
    match super::functions::to_number(text) {
        Some(number) => Ok((Token::Number(number), length)),
        None => Err(ParseError(format!("malformed number near '{text}'"))),
    }
}

/// `'...'` and `"..."`, with Lua's escapes.
fn quoted(source: &str) -> Result<(Token, usize), ParseError> {
    let bytes = source.as_bytes();
    let unfinished = || ParseError(format!("unfinished string near '{source}'"));
    let mut text = Vec::new();
    let mut at = 1;
    loop {
        let c = *bytes.get(at).ok_or_else(unfinished)?;
        at += 1;
        if c == bytes[0] {
            return Ok((Token::Text(text), at));
        }
        if c != b'\\' {
            text.push(c);
            continue;
        }
        let escape = *bytes.get(at).ok_or_else(unfinished)?;
        at += 1;
        text.push(match escape {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'x' => {
                let digits = source.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                at += 2;
                digits.ok_or_else(|| ParseError(format!("invalid escape sequence near '{source}'")))?
            }
            b'0'..=b'9' => {
                at -= 1;
                let length = bytes[at..].iter().take(3).take_while(|c| c.is_ascii_digit()).count();
                let code = source[at..at + length].parse::<u8>();
                at += length;
                code.map_err(|_| ParseError(format!("invalid escape sequence near '{source}'")))?
            }
            other => other,
        });
    }
}

/// `[[...]]`, `[==[...]==]`
fn long_bracket(source: &str) -> Result<Option<(Token, usize)>, ParseError> {
    let Some(rest) = source.strip_prefix('[') else { return Ok(None) };
    let level = rest.len() - rest.trim_start_matches('=').len();
    let Some(text) = rest[level..].strip_prefix('[') else { return Ok(None) };
    let close = format!("]{}]", "=".repeat(level));
    let Some(end) = text.find(&close) else {
        return Err(ParseError(format!("unfinished long string near '{source}'")));
    };
    let content = text[..end].strip_prefix('\n').unwrap_or(&text[..end]);
    Ok(Some((Token::Text(content.as_bytes().to_vec()), 2 * (level + 2) + end)))
}
