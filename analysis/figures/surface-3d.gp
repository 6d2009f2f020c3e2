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
floor = z_low - 0.75 * (z_high - z_low)
set xyplane at floor
set xrange [x_low:x_high]
set yrange [y_low:y_high]
set zrange [floor:z_high]
set cbrange [z_low:z_high]
set label x_label at (x_low + x_high) / 2, y_low - 0.36 * (y_high - y_low), floor center
set label y_label at x_high + 0.36 * (x_high - x_low), (y_low + y_high) / 2, floor center
eval words_right(0.22)
set xtics 2 * x_step offset 0.3,-0.1
set ytics 2 * y_step offset 0.3,-0.1
unset ztics
list = ''
do for [k = 1:|levels|] { list = list.(k > 1 ? ',' : '').sprintf('%.12g', levels[k]) }
eval 'set cbtics ('.list.') offset -0.6,0'
set colorbox user origin screen right + X(0.25), screen bottom + Y(0.8) size screen X(0.26), screen top - bottom - Y(1.1)
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
do for [format in formats] {
    eval terminal(format)
    set output name.'.'.format
    splot for [k = 1:n_contours] $contours using 1:2:(floor):3 with lines lw 0.8 lc palette, \
        for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2:(floor) with lines lw 0.8 dt k lc rgb '#808080', \
        for [k = 1:n_base] data index 'base' using 1:2:(floor) with points pt 6 ps 0.5 lw 0.8 lc rgb '#808080', \
        for [k = 1:n_minimum] data index 'minimum' using 1:2:(floor) with points pt 3 ps 0.5 lw 0.8 lc rgb '#808080', \
        for [k = 1:n_base] data index 'base' using 1:2:(floor):(0):(0):(shown($3) - floor) with vectors nohead lw 0.6 dt 3 lc rgb '#808080', \
        for [k = 1:n_minimum] data index 'minimum' using 1:2:(floor):(0):(0):(shown($3) - floor) with vectors nohead lw 0.6 dt 3 lc rgb '#808080', \
        data index 'smooth' every every_x:every_y using 1:2:(shown($3)) with pm3d, \
        for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2:(above($4)) with lines lw 2 lc rgb 'white', \
        for [k = 1:n_paths] data index sprintf('path %d', k) using 1:2:(above($4)) with lines lw 1 dt k lc rgb 'black', \
        for [k = 1:n_base] data index 'base' using 1:2:(above($3)) with points pt 7 ps 0.7 lc rgb 'white', \
        for [k = 1:n_base] data index 'base' using 1:2:(above($3)) with points pt 6 ps 0.7 lw 1 lc rgb 'black', \
        for [k = 1:n_minimum] data index 'star' using (right_of($1, $4)):(behind($2, $4)):(over($3, $5)) with polygons fc rgb 'white', \
        for [k = 1:n_minimum] data index 'star' using (right_of($1, $4)):(behind($2, $4)):(over($3, $5)) with lines lw 1 lc rgb 'black'
    unset output
}
