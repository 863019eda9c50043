//! The scraper's own metrics. What a scrape found is in `up`, `scrape_duration_seconds` and so on, as Prometheus has them.

triptych_model::telemetry! {
    /// Targets that are scraped now.
    gauge targets() = "triptych_scraper_targets";
    /// Scrapes by outcome (`success`, `error`).
    counter scrapes(outcome) = "triptych_scraper_scrapes_total";
    /// Scraped samples that were refused, by reason.
    counter refused_samples(reason) = "triptych_scraper_refused_samples_total";
    /// Scrapes that could not be written before the next was due.
    counter lost_scrapes() = "triptych_scraper_lost_scrapes_total";
}
