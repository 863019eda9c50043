//! Go's `fmt.Sprintf`, as far as values of templates go.

use std::fmt::Write;

use super::functions::{Arguments, width};
use super::value::{Value, print_float, print_float_to};
use super::{OUTPUT_BYTES_MAX, Rendered};

/// `%v %s %d %q %f %e %g %x %X %o %b %c %t %%` with flags `-`, `+`, `0`, ` `, width and precision.
pub(super) fn printf(a: &Arguments<'_, '_>) -> Rendered<String> {
    let layout = a.text(0);
    let labels = a.run.labels;
    let mut out = String::new();
    let mut at = 1;
    let mut chars = layout.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut plus, mut zero, mut blank, mut sharp) = (false, false, false, false, false);
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => left = true,
                '+' => plus = true,
                '0' => zero = true,
                ' ' => blank = true,
                '#' => sharp = true,
                _ => break,
            }
            chars.next();
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| -> Rendered<Option<usize>> {
            let mut value: Option<usize> = None;
            if chars.peek() == Some(&'*') {
                chars.next();
                at += 1;
                return Ok(Some(width(a.int(at - 1))?));
            }
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                value = Some(value.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize));
            }
            match value {
                Some(v) => Ok(Some(width(v as i64)?)),
                None => Ok(None),
            }
        };
        let columns = number(&mut chars)?;
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            precision = Some(number(&mut chars)?.unwrap_or(0));
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = a.values.get(at) else {
            let _ = write!(out, "%!{verb}(MISSING)");
            continue;
        };
        at += 1;
        let sign = |negative: bool| match (negative, plus, blank) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        let mut body = String::new();
        let mut numeric = matches!(value, Value::Int(_) | Value::Float(_));
        match (verb, value) {
            ('v' | 'd', Value::Int(i)) => {
                let _ = write!(body, "{}{}", sign(*i < 0), i.unsigned_abs());
            }
            ('x', Value::Int(i)) => {
                let _ =
                    write!(body, "{}{}{:x}", sign(*i < 0), if sharp { "0x" } else { "" }, i.unsigned_abs());
            }
            ('X', Value::Int(i)) => {
                let _ =
                    write!(body, "{}{}{:X}", sign(*i < 0), if sharp { "0X" } else { "" }, i.unsigned_abs());
            }
            ('o', Value::Int(i)) => {
                let _ = write!(body, "{}{:o}", sign(*i < 0), i.unsigned_abs());
            }
            ('b', Value::Int(i)) => {
                let _ = write!(body, "{}{:b}", sign(*i < 0), i.unsigned_abs());
            }
            ('c', Value::Int(i)) => {
                body.push(
                    u32::try_from(*i).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER),
                );
                numeric = false;
            }
            ('f' | 'F', Value::Float(f)) => {
                let _ = write!(
                    body,
                    "{}{:.*}",
                    sign(f.is_sign_negative()),
                    precision.unwrap_or(6).min(400),
                    f.abs()
                );
            }
            ('e', Value::Float(f)) => {
                let text = format!("{:.*e}", precision.unwrap_or(6).min(400), f.abs());
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let (mark, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
                let _ = write!(body, "{}{digits}e{mark}{exponent:0>2}", sign(f.is_sign_negative()));
            }
            ('v' | 'g', Value::Float(f)) => {
                body.push_str(sign(f.is_sign_negative()));
                match precision {
                    Some(digits) => {
                        let rounded: f64 =
                            format!("{:.*e}", digits.clamp(1, 17) - 1, f.abs()).parse().unwrap_or(f.abs());
                        print_float_to(rounded, digits.clamp(1, 17) as i32, &mut body);
                    }
                    None => print_float(f.abs(), &mut body),
                }
            }
            ('t' | 'v', Value::Bool(b)) => {
                let _ = write!(body, "{b}");
            }
            ('q', Value::Text(t)) => body = crate::syntax::display::quote(t),
            ('x', Value::Text(t)) => t.bytes().for_each(|b| {
                let _ = write!(body, "{b:02x}");
            }),
            ('s', Value::Int(_) | Value::Float(_) | Value::Bool(_))
            | ('d', Value::Text(_) | Value::Float(_) | Value::Bool(_))
            | ('f' | 'F' | 'e' | 'g' | 't', _) => {
                let _ = write!(body, "%!{verb}({}=", value.kind());
                value.print(labels, &mut body);
                body.push(')');
                numeric = false;
            }
            ('s' | 'v', other) => {
                other.print(labels, &mut body);
                if let (Some(digits), 's') = (precision, verb) {
                    body = body.chars().take(digits).collect();
                }
            }
            _ => {
                let _ = write!(body, "%!{verb}({}=", value.kind());
                value.print(labels, &mut body);
                body.push(')');
                numeric = false;
            }
        }
        let pad = columns.unwrap_or(0).saturating_sub(body.chars().count());
        if left {
            out.push_str(&body);
            out.extend(std::iter::repeat_n(' ', pad));
        } else if zero && numeric {
            let digits = body.trim_start_matches(['-', '+', ' ']);
            out.push_str(&body[..body.len() - digits.len()]);
            out.extend(std::iter::repeat_n('0', pad));
            out.push_str(digits);
        } else {
            out.extend(std::iter::repeat_n(' ', pad));
            out.push_str(&body);
        }
        if out.len() > OUTPUT_BYTES_MAX {
            return Err(format!("printf: more than {OUTPUT_BYTES_MAX} bytes"));
        }
    }
    Ok(out)
}
