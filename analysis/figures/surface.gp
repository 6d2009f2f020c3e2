# The cells are the measured values; the contours are of the smooth surface through them.
set border 15
unset grid
set palette defined (0 '#440154', 1 '#482475', 2 '#414487', 3 '#355f8d', 4 '#2a788e', 5 '#21918c', \
                     6 '#22a884', 7 '#44bf70', 8 '#7ad151', 9 '#bddf26', 10 '#fde725')
eval words_below(0.78)
eval words_left(0.22)
eval words_right(0.22)
set xrange [x_low:x_high]
set yrange [y_low:y_high]
eval 'set xtics ('.x_ticks.') offset 0,0.3'
eval 'set ytics ('.y_ticks.') offset 0.6,0'
set cbrange [z_low:z_high]
set colorbox user origin screen right + X(0.25), screen bottom size screen X(0.26), screen top - bottom
list = ''
names = ''
do for [k = 1:|levels|] {
    list = list.(k > 1 ? ',' : '').sprintf('%.12g', levels[k])
    names = names.(k > 1 ? ',' : '').sprintf('"%s" %.12g', level_labels[k], levels[k])
}
eval 'set cbtics ('.names.') offset -0.6,0'
# Values beyond the colours: the bar ends in a point.
bar = right + X(0.25)
if (more_above) {
    set object polygon from screen bar, screen top to screen bar + X(0.26), screen top \
        to screen bar + X(0.13), screen top + Y(0.18) to screen bar, screen top \
        fc rgb '#fde725' fs solid border lc rgb '#303030' lw 0.6
}
if (more_below) {
    set object polygon from screen bar, screen bottom to screen bar + X(0.26), screen bottom \
        to screen bar + X(0.13), screen bottom - Y(0.18) to screen bar, screen bottom \
        fc rgb '#440154' fs solid border lc rgb '#303030' lw 0.6
}
if (n_missing) {
    set object rectangle from graph 0, graph 0 to graph 1, graph 1 behind fc rgb '#e7e7e7' fs solid noborder
}
seam = (x_high - x_low) / 1000 # cells overlap by this, so that no light shines between them
shown(z) = z < z_low ? z_low : z > z_high ? z_high : z
star_x = 0.2 * (x_high - x_low) / (width * (right - left)) # 0.2 cm
star_y = 0.2 * (y_high - y_low) / (height * (top - bottom))
do for [line = 1:|$legend|] { eval $legend[line] }
# What there is to draw, from below to above.
layers = "data index 'cells' using 1:2:3:($4 + seam):5:($6 + seam):(shown($7)) with boxxyerror lc palette fs solid noborder"
layer(text) = layers.', '.text
if (n_holes) {
    layers = layer("data index 'cells' using (valid(7) ? NaN : $1):2:3:4:5:6 with boxxyerror lc rgb 'white' fs solid noborder")
    layers = layer("data index 'cells' using (valid(7) ? NaN : $1):2 with points pt 2 ps hole_size lw 0.6 lc rgb '#707070'")
}
if (n_low_contours) {
    layers = layer("data index 'low contours' using 1:2 with lines lw 0.5 lc rgb 'white'")
}
if (n_high_contours) {
    layers = layer("data index 'high contours' using 1:2 with lines lw 0.5 lc rgb '#202020'")
}
if (n_paths) {
    layers = layer("for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2 with lines lw 2 lc rgb 'white'")
    layers = layer("for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2 with lines lw 1 dt k lc rgb 'black'")
    layers = layer("for [k = 1:n_paths] data index sprintf('dots %d', k) using 1:2 with points pt 7 ps 0.25 lc rgb 'black'")
    layers = layer("for [k = 1:n_paths] data index sprintf('end %d', k) using 1:2:3:4 with vectors head filled size screen 0.02,20 lw 1 lc rgb 'black'")
}
if (n_best) {
    layers = layer("data index 'best' using 1:2 with points pt 5 ps 0.6 lc rgb 'white'")
    layers = layer("data index 'best' using 1:2 with points pt 4 ps 0.6 lw 1 lc rgb 'black'")
}
if (n_run) {
    layers = layer("data index 'run' using 1:2 with points pt 13 ps 0.8 lc rgb 'white'")
    layers = layer("data index 'run' using 1:2 with points pt 12 ps 0.8 lw 1 lc rgb 'black'")
}
if (n_base) {
    layers = layer("data index 'base' using 1:2 with points pt 7 ps 0.7 lc rgb 'white'")
    layers = layer("data index 'base' using 1:2 with points pt 6 ps 0.7 lw 1 lc rgb 'black'")
}
if (n_minimum) {
    layers = layer("data index 'star' using ($1 + star_x * $4):($2 + star_y * $5) with filledcurves closed fc rgb 'white' fs solid border lc rgb 'black' lw 1")
}
do for [format in formats] {
    eval terminal(format)
    set output name.'.'.format
    eval 'plot '.layers
    unset output
}
