-- What sqlmetrics counts about itself has one family more.
DROP VIEW figure;
CREATE VIEW figure AS
SELECT id FROM family
 WHERE name IN ('sqlmetrics_errors', 'sqlmetrics_flush_seconds', 'sqlmetrics_scrape_seconds',
                'sqlmetrics_series_limited');
