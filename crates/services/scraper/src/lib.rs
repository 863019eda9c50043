//! triptych-scraper
