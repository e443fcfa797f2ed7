"""lungseg: lung mask, class and class activation map of a chest X-ray from one network in one pass.

Research software, not a medical device.
"""

__version__ = "0.1.0"
