# What all figures share: the paper, the letters, the frame.
set encoding utf8
set decimalsign '.'
# Dots a cm of a PNG: png_pixels a column of 8.5 cm; of many panels fewer, 2.5 million in all.
dots = png_pixels / 8.5
dots = dots**2 * width * height > 2.5e6 ? sqrt(2.5e6 / (width * height)) : dots
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
# Panels in rows: number p of n_panels, in n_columns columns of 8.5 cm.
panel_column(p) = (p - 1) % n_columns
panel_row(p) = (p - 1) / n_columns
place(p) = sprintf("set lmargin at screen X(%.4f); set rmargin at screen X(%.4f); set tmargin at screen %.6f; set bmargin at screen %.6f", \
    panel_column(p) * 8.5 + panel_left, panel_column(p) * 8.5 + 8.1, top - Y(panel_row(p) * panel_step), top - Y(panel_row(p) * panel_step + panel_height))
words_at(p) = sprintf("set label x_label at graph 0.5, screen %.6f center; set label y_labels[%d] at screen X(%.4f), graph 0.5 center rotate; set label titles[%d] at graph 0.02, graph 0.96 left font ',7'", \
    top - Y(panel_row(p) * panel_step + panel_height + 0.78), p, panel_column(p) * 8.5 + 0.22, p)
