# What all figures share: the paper, the letters, the frame.
set encoding utf8
set decimalsign '.'
dots = 1200 / 8.5 # of a PNG: a column of 8.5 cm has 1200
big(k) = sprintf(" fontscale %.4f linewidth %.4f background '#ffffff'", k, k)
terminal(format) = \
    format eq 'png' ? sprintf("set terminal pngcairo size %d,%d font 'sans,8'", width * dots, height * dots).big(dots / 28.35).sprintf(' pointscale %.4f', dots / 28.35) : \
    format eq 'svg' ? sprintf("set terminal svg size %d,%d dynamic font 'sans-serif,8'", width * 28.35, height * 28.35).big(1) : \
    sprintf("set terminal pdfcairo size %.4fcm,%.4fcm font 'sans,8'", width, height).big(1)
X(cm) = cm / width # places on the paper
Y(cm) = cm / height
set border 3 lw 0.6 lc rgb '#303030'
set tics nomirror out scale 0.4 font ',7' textcolor rgb '#303030'
set grid back lc rgb '#e4e4e4' lw 0.5 dt 1
set lmargin at screen left
set rmargin at screen right
set tmargin at screen top
set bmargin at screen bottom
unset key
# Words along the axes at fixed places: d cm from the left edge of the picture, below the plot.
words_below(d) = sprintf("set label x_label at screen (left + right) / 2, screen bottom - Y(%g) center", d)
words_left(d) = sprintf("set label y_label at screen X(%g), screen (bottom + top) / 2 center rotate", d)
words_right(d) = sprintf("set label z_label at screen 1 - X(%g), screen (bottom + top) / 2 center rotate", d)
