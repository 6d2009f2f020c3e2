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
set xtics x_step offset 0,0.3
set ytics y_step offset 0.6,0
set cbrange [z_low:z_high]
set colorbox user origin screen right + X(0.25), screen bottom size screen X(0.26), screen top - bottom
list = ''
do for [k = 1:|levels|] { list = list.(k > 1 ? ',' : '').sprintf('%.12g', levels[k]) }
eval 'set cbtics ('.list.') offset -0.6,0'
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
$contours << EOD
0 0 0
EOD
if (n_contours) {
    set contour base
    unset surface
    eval 'set cntrparam levels discrete '.list
    set table $contours
    splot data index 'smooth' using 1:2:3
    unset table
    unset contour
    set surface
}
seam = (x_high - x_low) / 1000 # cells overlap by this, so that no light shines between them
middle = (z_low + z_high) / 2
shown(z) = z < z_low ? z_low : z > z_high ? z_high : z
star_x = 0.2 * (x_high - x_low) / (width * (right - left)) # 0.2 cm
star_y = 0.2 * (y_high - y_low) / (height * (top - bottom))
do for [line = 1:|$legend|] { eval $legend[line] }
do for [format in formats] {
    eval terminal(format)
    set output name.'.'.format
    plot data index 'cells' using 1:2:3:($4 + seam):5:($6 + seam):(shown($7)) with boxxyerror lc palette fs solid noborder, \
        for [k = 1:n_holes] data index 'cells' using (valid(7) ? NaN : $1):2:3:4:5:6 with boxxyerror lc rgb 'white' fs solid noborder, \
        for [k = 1:n_holes] data index 'cells' using (valid(7) ? NaN : $1):2 with points pt 2 ps hole_size lw 0.6 lc rgb '#707070', \
        for [k = 1:n_contours] $contours using 1:2:($3 < middle ? 0xffffff : 0x202020) with lines lw 0.5 lc rgb variable, \
        for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2 with lines lw 2 lc rgb 'white', \
        for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2 with lines lw 1 dt k lc rgb 'black', \
        for [k = 1:n_paths] data index sprintf('dots %d', k) using 1:2 with points pt 7 ps 0.25 lc rgb 'black', \
        for [k = 1:n_paths] data index sprintf('end %d', k) using 1:2:3:4 with vectors head filled size screen 0.02,20 lw 1 lc rgb 'black', \
        for [k = 1:n_best] data index 'best' using 1:2 with points pt 5 ps 0.6 lc rgb 'white', \
        for [k = 1:n_best] data index 'best' using 1:2 with points pt 4 ps 0.6 lw 1 lc rgb 'black', \
        for [k = 1:n_run] data index 'run' using 1:2 with points pt 13 ps 0.8 lc rgb 'white', \
        for [k = 1:n_run] data index 'run' using 1:2 with points pt 12 ps 0.8 lw 1 lc rgb 'black', \
        for [k = 1:n_base] data index 'base' using 1:2 with points pt 7 ps 0.7 lc rgb 'white', \
        for [k = 1:n_base] data index 'base' using 1:2 with points pt 6 ps 0.7 lw 1 lc rgb 'black', \
        for [k = 1:n_minimum] data index 'star' using ($1 + star_x * $4):($2 + star_y * $5) with filledcurves closed fc rgb 'white' fs solid border lc rgb 'black' lw 1
    unset output
}
