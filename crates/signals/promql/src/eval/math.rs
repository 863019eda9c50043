//! Functions of one value: arithmetic, trigonometry, dates.

/// What is done with each value of a series.
#[derive(Debug, Clone, Copy)]
pub enum MathFn {
    Plain(fn(f64) -> f64),
    /// (min, max)
    Clamp,
    ClampMin,
    ClampMax,
    /// (to the nearest)
    Round,
}

/// By its name in the language.
pub fn math_fn(name: &str) -> Option<MathFn> {
    let plain: fn(f64) -> f64 = match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "deg" => |v| v * 180.0 / std::f64::consts::PI,
        "rad" => |v| v * std::f64::consts::PI / 180.0,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        "clamp" => return Some(MathFn::Clamp),
        "clamp_min" => return Some(MathFn::ClampMin),
        "clamp_max" => return Some(MathFn::ClampMax),
        "round" => return Some(MathFn::Round),
        _ => return None,
    };
    Some(MathFn::Plain(plain))
}

/// As Go's `math.Max`: NaN wins.
pub fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// As Go's `math.Min`: NaN wins.
pub fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// Half up, to a multiple of `nearest`.
pub fn round(value: f64, nearest: f64) -> f64 {
    // Dividing by the inverse loses less than multiplying with `nearest`.
    let inverse = 1.0 / nearest;
    (value * inverse + 0.5).floor() / inverse
}

/// A moment of the civil calendar, UTC.
struct Civil {
    year: i64,
    /// 1 to 12.
    month: i64,
    /// 1 to 31.
    day: i64,
    days_since_epoch: i64,
    second_of_day: i64,
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch of a civil date; the year begins in March here, so that a leap day is its last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil(value: f64) -> Civil {
    // Years beyond ±290 million mean nothing; the bound keeps the arithmetic in range.
    let seconds = (value as i64).clamp(-(1 << 53), 1 << 53);
    let days_since_epoch = seconds.div_euclid(86_400);
    let days = days_since_epoch + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil { year, month, day, days_since_epoch, second_of_day: seconds.rem_euclid(86_400) }
}

/// Date functions, of seconds since the epoch, by their names in the language.
pub fn date_fn(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "year" => |v| civil(v).year as f64,
        "month" => |v| civil(v).month as f64,
        "day_of_month" => |v| civil(v).day as f64,
        "day_of_week" => |v| (civil(v).days_since_epoch + 4).rem_euclid(7) as f64,
        "day_of_year" => |v| {
            let c = civil(v);
            (c.days_since_epoch - days_from_civil(c.year, 1, 1) + 1) as f64
        },
        "days_in_month" => |v| {
            let c = civil(v);
            days_in(c.year, c.month) as f64
        },
        "hour" => |v| (civil(v).second_of_day / 3600) as f64,
        "minute" => |v| (civil(v).second_of_day / 60 % 60) as f64,
        _ => return None,
    })
}

/// Adds `value` to `sum` with the rounding error kept in `compensation` (Kahan's summation, Neumaier's variant).
#[inline(always)]
pub fn kahan_add(value: f64, sum: &mut f64, compensation: &mut f64) {
    let total = *sum + value;
    if total.is_infinite() {
        *compensation = 0.0;
    } else if sum.abs() >= value.abs() {
        *compensation += (*sum - total) + value;
    } else {
        *compensation += (value - total) + *sum;
    }
    *sum = total;
}

/// The mean of a growing run of values. Sums with compensation as long as the sum stays finite, then goes on as a running
/// mean (Prometheus' `avg` and `avg_over_time`).
#[derive(Debug, Clone, Copy)]
pub struct Mean {
    /// The sum, or after an overflow the mean.
    value: f64,
    compensation: f64,
    pub count: f64,
    running: bool,
}

impl Mean {
    pub fn new(first: f64) -> Self {
        Self { value: first, compensation: 0.0, count: 1.0, running: false }
    }

    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.running {
            let (mut sum, mut compensation) = (self.value, self.compensation);
            kahan_add(value, &mut sum, &mut compensation);
            if !sum.is_infinite() {
                (self.value, self.compensation) = (sum, compensation);
                return;
            }
            self.running = true;
            self.value /= self.count - 1.0;
            self.compensation /= self.count - 1.0;
        }
        let keep = (self.count - 1.0) / self.count;
        self.value *= keep;
        self.compensation *= keep;
        kahan_add(value / self.count, &mut self.value, &mut self.compensation);
    }

    /// Sum and compensation; `None` after an overflow.
    pub fn sum(&self) -> Option<(f64, f64)> {
        (!self.running).then_some((self.value, self.compensation))
    }

    pub fn get(&self) -> f64 {
        if self.running {
            self.value + self.compensation
        } else {
            self.value / self.count + self.compensation / self.count
        }
    }
}

/// Orders values for quantiles and sorting: NaN comes first.
pub fn compare(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        _ => a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal),
    }
}

/// The `q`-quantile, interpolated between neighbours; sorts `values`.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| compare(*a, *b));
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}
