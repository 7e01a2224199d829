"""From licensed source files to documents: sources, licences, filters, decontamination, functions."""
