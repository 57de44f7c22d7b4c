"""HTML pages that open without a network: their shell, style, tables and charts."""
