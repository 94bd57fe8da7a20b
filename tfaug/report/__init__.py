"""One self-contained HTML page about a finished run or a folder of results, made from the files there.

make.py        the command's work: finds out the kind of folder, and writes the file
runs.py        a run, of a segmenter or of a generator
cases.py       the best, the median and the worst case, slice by slice
generators.py  what a generator does, in words and numbers; only its histograms load TensorFlow
grid.py        a folder of results
page.py        elements of HTML, escaped, and the page's frame
charts.py      curves, boxes, histograms and orders, as SVG
style.py       the page's style sheet and its script
"""
