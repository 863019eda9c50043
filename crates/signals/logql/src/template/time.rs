//! Go's reference-time layouts (`2006-01-02T15:04:05Z07:00`): formatting and parsing.

use std::fmt::Write;

use jiff::civil::{DateTime, date};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Literal(&'a str),
    Year4,
    Year2,
    MonthName,
    MonthShort,
    Month2,
    Month,
    DayName,
    DayShort,
    Day2,
    DayPadded,
    Day,
    YearDay,
    Hour24,
    Hour12Padded,
    Hour12,
    Minute2,
    Minute,
    Second2,
    Second,
    /// `.000` or `.999`: digits, and whether trailing zeros go.
    Fraction(usize, bool),
    UpperPm,
    LowerPm,
    Zone,
    /// Separator with colon, seconds never; `Z` for UTC.
    Offset {
        colon: bool,
        z: bool,
        hours_only: bool,
    },
}

const PARTS: [(&str, Part<'static>); 27] = [
    ("January", Part::MonthName),
    ("Jan", Part::MonthShort),
    ("Monday", Part::DayName),
    ("Mon", Part::DayShort),
    ("MST", Part::Zone),
    ("2006", Part::Year4),
    ("-07:00", Part::Offset { colon: true, z: false, hours_only: false }),
    ("-0700", Part::Offset { colon: false, z: false, hours_only: false }),
    ("-07", Part::Offset { colon: false, z: false, hours_only: true }),
    ("Z07:00", Part::Offset { colon: true, z: true, hours_only: false }),
    ("Z0700", Part::Offset { colon: false, z: true, hours_only: false }),
    ("Z07", Part::Offset { colon: false, z: true, hours_only: true }),
    ("002", Part::YearDay),
    ("01", Part::Month2),
    ("02", Part::Day2),
    ("03", Part::Hour12Padded),
    ("04", Part::Minute2),
    ("05", Part::Second2),
    ("06", Part::Year2),
    ("15", Part::Hour24),
    ("PM", Part::UpperPm),
    ("pm", Part::LowerPm),
    ("_2", Part::DayPadded),
    ("1", Part::Month),
    ("2", Part::Day),
    ("3", Part::Hour12),
    ("4", Part::Minute),
];

fn split(layout: &str, mut part: impl FnMut(Part<'_>) -> Option<()>) -> Option<()> {
    let mut rest = layout;
    let mut literal = 0;
    'next: while literal < rest.len() {
        let here = &rest[literal..];
        let mut hit = PARTS.iter().find(|(text, _)| here.starts_with(text)).map(|(text, p)| (text.len(), *p));
        if hit.is_none() && here.starts_with('5') {
            hit = Some((1, Part::Second));
        }
        if let Some(digit) = here.strip_prefix(['.', ',']).and_then(|t| t.chars().next())
            && matches!(digit, '0' | '9')
        {
            let digits = here[1..].chars().take_while(|c| *c == digit).count();
            if !here[1 + digits..].starts_with(|c: char| c.is_ascii_digit()) {
                hit = Some((1 + digits, Part::Fraction(digits, digit == '9')));
            }
        }
        if let Some((length, found)) = hit {
            if literal > 0 {
                part(Part::Literal(&rest[..literal]))?;
            }
            part(found)?;
            rest = &rest[literal + length..];
            literal = 0;
            continue 'next;
        }
        literal += here.chars().next().map_or(1, char::len_utf8);
    }
    if rest.is_empty() { Some(()) } else { part(Part::Literal(rest)) }
}

fn civil(ns: i64, offset_s: i32) -> DateTime {
    let at = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    Offset::from_seconds(offset_s).unwrap_or(Offset::UTC).to_datetime(at)
}

/// Appends the time as the layout says.
pub fn format(layout: &str, ns: i64, offset_s: i32, out: &mut String) {
    let t = civil(ns, offset_s);
    let hour12 = if t.hour() % 12 == 0 { 12 } else { t.hour() % 12 };
    let month = MONTHS[(t.month() as usize).saturating_sub(1) % 12];
    let day = DAYS[t.weekday().to_monday_zero_offset() as usize % 7];
    split(layout, |part| {
        let _ = match part {
            Part::Literal(text) => write!(out, "{text}"),
            Part::Year4 => write!(out, "{:04}", t.year()),
            Part::Year2 => write!(out, "{:02}", t.year().rem_euclid(100)),
            Part::MonthName => write!(out, "{month}"),
            Part::MonthShort => write!(out, "{}", &month[..3]),
            Part::Month2 => write!(out, "{:02}", t.month()),
            Part::Month => write!(out, "{}", t.month()),
            Part::DayName => write!(out, "{day}"),
            Part::DayShort => write!(out, "{}", &day[..3]),
            Part::Day2 => write!(out, "{:02}", t.day()),
            Part::DayPadded => write!(out, "{:2}", t.day()),
            Part::Day => write!(out, "{}", t.day()),
            Part::YearDay => write!(out, "{:03}", t.date().day_of_year()),
            Part::Hour24 => write!(out, "{:02}", t.hour()),
            Part::Hour12Padded => write!(out, "{hour12:02}"),
            Part::Hour12 => write!(out, "{hour12}"),
            Part::Minute2 => write!(out, "{:02}", t.minute()),
            Part::Minute => write!(out, "{}", t.minute()),
            Part::Second2 => write!(out, "{:02}", t.second()),
            Part::Second => write!(out, "{}", t.second()),
            Part::Fraction(digits, trim) => {
                let all = format!("{:09}", t.subsec_nanosecond());
                let digits = &all[..digits.min(9)];
                let digits = if trim { digits.trim_end_matches('0') } else { digits };
                if digits.is_empty() { Ok(()) } else { write!(out, ".{digits}") }
            }
            Part::UpperPm => write!(out, "{}", if t.hour() >= 12 { "PM" } else { "AM" }),
            Part::LowerPm => write!(out, "{}", if t.hour() >= 12 { "pm" } else { "am" }),
            Part::Zone if offset_s == 0 => write!(out, "UTC"),
            Part::Zone => write!(out, "{}", offset_text(offset_s, false, true)),
            Part::Offset { z: true, .. } if offset_s == 0 => write!(out, "Z"),
            Part::Offset { colon, hours_only, .. } => {
                write!(out, "{}", offset_text(offset_s, colon, hours_only))
            }
        };
        Some(())
    });
}

fn offset_text(offset_s: i32, colon: bool, hours_only: bool) -> String {
    let minutes = offset_s.abs() / 60;
    let sign = if offset_s < 0 { '-' } else { '+' };
    if hours_only && minutes % 60 == 0 {
        return format!("{sign}{:02}", minutes / 60);
    }
    format!("{sign}{:02}{}{:02}", minutes / 60, if colon { ":" } else { "" }, minutes % 60)
}

/// Reads a time written in the layout; `zone` counts where the text names none. Nanoseconds and offset.
pub fn parse(layout: &str, text: &str, zone: &jiff::tz::TimeZone) -> Option<(i64, i32)> {
    let (mut year, mut month, mut day, mut hour, mut minute, mut second, mut ns) =
        (0i16, 1i8, 1i8, 0i8, 0i8, 0i8, 0i32);
    let (mut pm, mut year_day, mut offset_s) = (None, None, None);
    let mut rest = text;
    split(layout, |part| {
        // Up to `max` digits, at least `min`.
        let mut number = |min: usize, max: usize| -> Option<i32> {
            let digits = rest.bytes().take(max).take_while(u8::is_ascii_digit).count();
            if digits < min {
                return None;
            }
            let value = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            Some(value)
        };
        match part {
            Part::Literal(text) => rest = rest.strip_prefix(text)?,
            Part::Year4 => year = number(4, 4)? as i16,
            Part::Year2 => {
                let short = number(2, 2)? as i16;
                year = short + if short >= 69 { 1900 } else { 2000 };
            }
            Part::MonthName | Part::MonthShort => {
                let at = MONTHS.iter().position(|m| {
                    let name = if part == Part::MonthName { m } else { &m[..3] };
                    rest.get(..name.len()).is_some_and(|r| r.eq_ignore_ascii_case(name))
                })?;
                rest = &rest[if part == Part::MonthName { MONTHS[at].len() } else { 3 }..];
                month = at as i8 + 1;
            }
            Part::Month2 => month = number(2, 2)? as i8,
            Part::Month => month = number(1, 2)? as i8,
            Part::DayName | Part::DayShort => {
                let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
                rest = &rest[letters..];
            }
            Part::Day2 => day = number(2, 2)? as i8,
            Part::DayPadded => {
                rest = rest.strip_prefix(' ').unwrap_or(rest);
                let digits = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
                day = rest[..digits].parse().ok()?;
                rest = &rest[digits..];
            }
            Part::Day => day = number(1, 2)? as i8,
            Part::YearDay => year_day = Some(number(3, 3)? as i16),
            Part::Hour24 => hour = number(2, 2)? as i8,
            Part::Hour12Padded => hour = number(2, 2)? as i8,
            Part::Hour12 => hour = number(1, 2)? as i8,
            Part::Minute2 => minute = number(2, 2)? as i8,
            Part::Minute => minute = number(1, 2)? as i8,
            Part::Second2 | Part::Second => {
                second = number(if part == Part::Second2 { 2 } else { 1 }, 2)? as i8;
            }
            Part::Fraction(..) => {}
            Part::UpperPm | Part::LowerPm => {
                pm = Some(match rest.get(..2)?.to_ascii_lowercase().as_str() {
                    "am" => false,
                    "pm" => true,
                    _ => return None,
                });
                rest = &rest[2..];
            }
            Part::Zone => {
                let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
                if letters == 0 {
                    return None;
                }
                if matches!(&rest[..letters], "UTC" | "GMT" | "Z") {
                    offset_s = Some(0);
                }
                rest = &rest[letters..];
            }
            Part::Offset { colon, z, hours_only } => {
                if z && let Some(tail) = rest.strip_prefix('Z') {
                    rest = tail;
                    offset_s = Some(0);
                    return Some(());
                }
                let sign = match rest.as_bytes().first()? {
                    b'+' => 1,
                    b'-' => -1,
                    _ => return None,
                };
                let digits = |t: &str| t.get(..2).and_then(|d| d.parse::<i32>().ok());
                let mut tail = &rest[1..];
                let hours = digits(tail)?;
                tail = &tail[2..];
                let mut minutes = 0;
                if !hours_only {
                    if colon {
                        tail = tail.strip_prefix(':')?;
                    }
                    minutes = digits(tail)?;
                    tail = &tail[2..];
                }
                rest = tail;
                offset_s = Some(sign * (hours * 3600 + minutes * 60));
            }
        }
        // As Go: a fraction may follow the seconds even where the layout has none.
        if matches!(part, Part::Second2 | Part::Second | Part::Fraction(..))
            && let Some(tail) = rest.strip_prefix(['.', ','])
        {
            let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                ns = format!("{:0<9}", &tail[..digits]).get(..9)?.parse().ok()?;
                rest = &tail[digits..];
            }
        }
        Some(())
    })?;
    if !rest.is_empty() {
        return None;
    }
    if let Some(pm) = pm {
        hour = hour % 12 + if pm { 12 } else { 0 };
    }
    let mut at = DateTime::new(year, month, day, hour, minute, second, ns).ok()?;
    if let Some(year_day) = year_day {
        let start =
            date(year, 1, 1).checked_add(SignedDuration::from_hours(24 * i64::from(year_day - 1))).ok()?;
        at = start.to_datetime(at.time());
    }
    let zoned = match offset_s {
        Some(offset) => at.to_zoned(Offset::from_seconds(offset).ok()?.to_time_zone()).ok()?,
        None => at.to_zoned(zone.clone()).ok()?,
    };
    let ns = i64::try_from(zoned.timestamp().as_nanosecond()).ok()?;
    Some((ns, zoned.offset().seconds()))
}
