"""Readers: functions from (data set, split, paths) to images, one family of file formats a module."""
