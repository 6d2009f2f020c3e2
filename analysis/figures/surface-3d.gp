# The smooth surface through the measured values; its contours on the floor.
set palette defined (0 '#440154', 1 '#482475', 2 '#414487', 3 '#355f8d', 4 '#2a788e', 5 '#21918c', \
                     6 '#22a884', 7 '#44bf70', 8 '#7ad151', 9 '#bddf26', 10 '#fde725')
set border 15 lw 0.5 # the floor's
unset grid
turn = 35
tilt = 58
set view tilt, turn, 1.06, 1.35
set origin 0, bottom
set size right + X(0.25), 1 - bottom - Y(0.1)
set lmargin 0
set rmargin 0
set tmargin 0
set bmargin 0
z_low = z_low - z_origin # heights above it: exact where values differ in their last digits only
z_high = z_high - z_origin
floor = z_low - 0.75 * (z_high - z_low)
set xyplane at floor
set xrange [x_low:x_high]
set yrange [y_low:y_high]
set zrange [floor:z_high]
set cbrange [z_low:z_high]
set label x_label at (x_low + x_high) / 2, y_low - 0.42 * (y_high - y_low), floor center
set label y_label at x_high + 0.42 * (x_high - x_low), (y_low + y_high) / 2, floor center
eval words_right(0.22)
eval 'set xtics ('.x_ticks.') offset 0.3,-0.1'
eval 'set ytics ('.y_ticks.') offset 0.3,-0.1'
unset ztics
list = ''
names = ''
do for [k = 1:|levels|] {
    list = list.(k > 1 ? ',' : '').sprintf('%.12g', levels[k] - z_origin)
    names = names.(k > 1 ? ',' : '').sprintf('"%s" %.12g', level_labels[k], levels[k] - z_origin)
}
eval 'set cbtics ('.names.') offset -0.6,0'
set colorbox user origin screen right + X(0.25), screen bottom + Y(0.8) size screen X(0.26), screen top - bottom - Y(1.1)
set pm3d scansautomatic border lc rgb '#90202020' lw 0.25
set style fill solid
shown(z) = z < z_low ? z_low : z > z_high ? z_high : z
above(z) = shown(z) + 0.015 * (z_high - z_low)
# A star that faces the reader: u to the right and w up on the paper.
star = 0.035
right_of(x, u) = x + star * u * cos(turn * pi / 180) * (x_high - x_low)
behind(y, u) = y + star * u * sin(turn * pi / 180) * (y_high - y_low)
over(z, w) = above(z) + 1.5 * star * w * (z_high - floor) / sin(tilt * pi / 180)
do for [line = 1:|$legend|] { eval $legend[line] }
# What there is to draw: first the floor.
surface = "data index 'smooth' every every_x:every_y using 1:2:(shown($3 - z_origin)) with pm3d"
layers = ''
layer(text) = layers.(layers eq '' ? '' : ', ').text
if (n_low_contours) {
    layers = layer("data index 'low contours' using 1:2:(floor):($3 - z_origin) with lines lw 0.8 lc palette")
}
if (n_paths) {
    layers = layer("for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2:(floor) with lines lw 0.8 dt k lc rgb '#808080'")
}
if (n_base) {
    layers = layer("data index 'base' using 1:2:(floor) with points pt 6 ps 0.5 lw 0.8 lc rgb '#808080'")
    layers = layer("data index 'base' using 1:2:(floor):(0):(0):(shown($3 - z_origin) - floor) with vectors nohead lw 0.6 dt 3 lc rgb '#808080'")
}
if (n_minimum) {
    layers = layer("data index 'minimum' using 1:2:(floor) with points pt 3 ps 0.5 lw 0.8 lc rgb '#808080'")
    layers = layer("data index 'minimum' using 1:2:(floor):(0):(0):(shown($3 - z_origin) - floor) with vectors nohead lw 0.6 dt 3 lc rgb '#808080'")
}
layers = layer(surface)
if (n_paths) {
    layers = layer("for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2:(above($4 - z_origin)) with lines lw 2 lc rgb 'white'")
    layers = layer("for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2:(above($4 - z_origin)) with lines lw 1 dt k lc rgb 'black'")
}
if (n_base) {
    layers = layer("data index 'base' using 1:2:(above($3 - z_origin)) with points pt 7 ps 0.7 lc rgb 'white'")
    layers = layer("data index 'base' using 1:2:(above($3 - z_origin)) with points pt 6 ps 0.7 lw 1 lc rgb 'black'")
}
if (n_minimum) {
    layers = layer("data index 'star' using (right_of($1, $4)):(behind($2, $4)):(over($3 - z_origin, $5)) with polygons fc rgb 'white'")
    layers = layer("data index 'star' using (right_of($1, $4)):(behind($2, $4)):(over($3 - z_origin, $5)) with lines lw 1 lc rgb 'black'")
}
do for [format in formats] {
    eval terminal(format)
    set output name.'.'.format
    eval 'splot '.layers
    unset output
}
