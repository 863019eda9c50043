//! The functions' names and signatures. What they do is in `eval`.

use crate::ast::Type;

/// A function as the parser sees it.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    pub args: &'static [Type],
    pub variadic: Variadic,
    pub returns: Type,
}

/// What may be done with the last argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variadic {
    /// It is there once.
    No,
    /// It is there at most this often.
    AtMost(usize),
    /// It is there any number of times, also none.
    Any,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Function {
    /// Looks a function up by its name, which is case-sensitive.
    pub fn find(name: &str) -> Option<&'static Function> {
        FUNCTIONS.iter().find(|f| f.name == name)
    }

    /// The type of the `index`th argument; the last one repeats.
    pub fn arg(&self, index: usize) -> Option<Type> {
        match self.variadic {
            Variadic::No => self.args.get(index).copied(),
            _ => self.args.get(index).or(self.args.last()).copied(),
        }
    }
}

const S: Type = Type::Scalar;
const V: Type = Type::Vector;
const M: Type = Type::Matrix;
const T: Type = Type::String;

const fn f(name: &'static str, args: &'static [Type], variadic: Variadic, returns: Type) -> Function {
    Function { name, args, variadic, returns }
}

/// A function of an instant vector, with further arguments.
const fn v(name: &'static str, args: &'static [Type]) -> Function {
    f(name, args, Variadic::No, V)
}

/// A date function: of a vector, or of the evaluation time.
const fn date(name: &'static str) -> Function {
    f(name, &[V], Variadic::AtMost(1), V)
}

/// Every function known, among them Prometheus' experimental ones.
pub static FUNCTIONS: &[Function] = &[
    v("abs", &[V]),
    v("absent", &[V]),
    v("absent_over_time", &[M]),
    v("acos", &[V]),
    v("acosh", &[V]),
    v("asin", &[V]),
    v("asinh", &[V]),
    v("atan", &[V]),
    v("atanh", &[V]),
    v("avg_over_time", &[M]),
    v("ceil", &[V]),
    v("changes", &[M]),
    v("clamp", &[V, S, S]),
    v("clamp_max", &[V, S]),
    v("clamp_min", &[V, S]),
    v("cos", &[V]),
    v("cosh", &[V]),
    v("count_over_time", &[M]),
    date("day_of_month"),
    date("day_of_week"),
    date("day_of_year"),
    date("days_in_month"),
    v("deg", &[V]),
    v("delta", &[M]),
    v("deriv", &[M]),
    v("double_exponential_smoothing", &[M, S, S]),
    f("end", &[], Variadic::No, S),
    v("exp", &[V]),
    v("first_over_time", &[M]),
    v("floor", &[V]),
    v("histogram_avg", &[V]),
    v("histogram_count", &[V]),
    v("histogram_fraction", &[S, S, V]),
    v("histogram_quantile", &[S, V]),
    f("histogram_quantiles", &[V, T, S, S], Variadic::AtMost(9), V),
    v("histogram_stddev", &[V]),
    v("histogram_stdvar", &[V]),
    v("histogram_sum", &[V]),
    // The name that Prometheus 2 had for double_exponential_smoothing.
    v("holt_winters", &[M, S, S]),
    date("hour"),
    v("idelta", &[M]),
    v("increase", &[M]),
    v("irate", &[M]),
    f("label_join", &[V, T, T, T], Variadic::Any, V),
    v("label_replace", &[V, T, T, T, T]),
    v("last_over_time", &[M]),
    v("ln", &[V]),
    v("log10", &[V]),
    v("log2", &[V]),
    v("mad_over_time", &[M]),
    f("max_of", &[S, S], Variadic::No, S),
    v("max_over_time", &[M]),
    f("min_of", &[S, S], Variadic::No, S),
    v("min_over_time", &[M]),
    date("minute"),
    date("month"),
    f("pi", &[], Variadic::No, S),
    v("predict_linear", &[M, S]),
    v("present_over_time", &[M]),
    v("quantile_over_time", &[S, M]),
    v("rad", &[V]),
    f("range", &[], Variadic::No, S),
    v("rate", &[M]),
    v("resets", &[M]),
    f("round", &[V, S], Variadic::AtMost(1), V),
    f("scalar", &[V], Variadic::No, S),
    v("sgn", &[V]),
    v("sin", &[V]),
    v("sinh", &[V]),
    v("sort", &[V]),
    f("sort_by_label", &[V, T], Variadic::Any, V),
    f("sort_by_label_desc", &[V, T], Variadic::Any, V),
    v("sort_desc", &[V]),
    v("sqrt", &[V]),
    f("start", &[], Variadic::No, S),
    v("stddev_over_time", &[M]),
    v("stdvar_over_time", &[M]),
    f("step", &[], Variadic::No, S),
    v("sum_over_time", &[M]),
    v("tan", &[V]),
    v("tanh", &[V]),
    f("time", &[], Variadic::No, S),
    v("timestamp", &[V]),
    v("ts_of_first_over_time", &[M]),
    v("ts_of_last_over_time", &[M]),
    v("ts_of_max_over_time", &[M]),
    v("ts_of_min_over_time", &[M]),
    f("vector", &[S], Variadic::No, V),
    date("year"),
];
